//! What expressions come to, and what is said about those that come to nothing.

use std::collections::BTreeMap;

use argosy_expr::{Env, Error, Expressions, Limits, Rules, Value, program, substitute_with};

/// 2024-03-01T10:00:00Z
const NOW_MS: i64 = 1_709_287_200_000;

fn env() -> Env {
    [
        ("workflow.name", "w"),
        ("workflow.parameters", "[]"),
        ("workflow.parameters.num", "42"),
        ("workflow.parameters.json", r#"{"a": {"b": [1, 2.5, "x"]}, "t": true}"#),
        ("workflow.parameters.with-dash", "dashed"),
        ("item", "3"),
        ("steps.a.outputs.result", "done"),
    ]
    .into_iter()
    .map(|(name, value)| (name, Value::from(value)))
    .chain([("steps.a.outputs.parameters.skipped", Value::Nil)])
    .collect()
}

fn evaluate(text: &str) -> Result<String, String> {
    let program = program::compile(text).map_err(|error| error.to_string())?;
    let value = program.evaluate(&env(), &Limits::DEFAULT, NOW_MS).map_err(|error| error.to_string())?;
    value.json(false, Limits::DEFAULT.output_bytes_max)
}

#[track_caller]
fn all_equal(cases: &[(&str, &str)]) {
    for (text, expected) in cases {
        let given = evaluate(text).unwrap_or_else(|message| format!("error: {message}"));
        assert_eq!(&given, expected, "{text}");
    }
}

#[test]
fn operators() {
    all_equal(&[
        ("1 + 2 * 3 - -4", "11"),
        ("-2 ** 2", "-4"),
        ("2 ** 3 ** 2", "512"),
        ("7 / 2", "3.5"),
        ("7 % 3", "1"),
        ("1 < 2 < 3", "true"),
        ("3 > 2 >= 2 > 1", "true"),
        ("not false && !false", "true"),
        ("not (1 in [2])", "true"),
        ("1 not in [2]", "true"),
        ("'abc' not startsWith 'b'", "true"),
        ("'a' + 'b' contains 'ab'", "true"),
        ("'2024' matches '^\\\\d+$'", "true"),
        ("'é' matches '^\\\\w$'", "false"),
        ("nil ?? nil ?? 3", "3"),
        ("true ? 1 : 2", "1"),
        ("0 == 0.0", "true"),
        ("[1, [2]] == [1.0, [2]]", "true"),
        ("{a: 1} == {a: 1}", "true"),
        ("1..3", "[1,2,3]"),
        ("3..1", "[]"),
        ("'a' < 'b'", "true"),
        ("0x1F + 0b11 + 0o17 + 1_000", "1049"),
        (".5 + 1e1", "10.5"),
        ("/* five */ 5 // and no more", "5"),
        ("9223372036854775807 + 1", "-9223372036854775808"),
    ]);
}

#[test]
fn members_slices_and_chains() {
    all_equal(&[
        ("[1, 2, 3][-1]", "3"),
        ("[1, 2, 3][1:]", "[2,3]"),
        ("[1, 2, 3][:-1]", "[1,2]"),
        ("'hello'[1:3]", "\"el\""),
        ("{'a b': 1}['a b']", "1"),
        ("{a: {b: 2}}.a.b", "2"),
        ("{a: nil}.a?.b.c", "null"),
        ("{a: nil}?.a?.b ?? 'x'", "\"x\""),
        ("workflow.parameters['with-dash']", "\"dashed\""),
        ("workflow.parameters.nope ?? 'none'", "\"none\""),
        ("steps.a.outputs.parameters.skipped ?? 'none'", "\"none\""),
        ("len($env.workflow.parameters)", "3"),
    ]);
}

#[test]
fn variables_conditions_pipes_and_predicates() {
    all_equal(&[
        ("let x = 2; let y = x + 1; x * y", "6"),
        ("if 1 > 2 { 'a' } else if 2 > 1 { 'b' } else { 'c' }", "\"b\""),
        (
            "[3, 1, 2] | sort() | map(# * 2) | join2()",
            "error: unknown name join2 (1:35)\n | [3, 1, 2] | sort() | map(# * 2) | join2()\n | ..................................^",
        ),
        ("['c', 'a'] | sort() | join('-')", "\"a-c\""),
        ("filter([{n: 1}, {n: 2}], .n > 1)", "[{\"n\":2}]"),
        ("map([10, 20], #index)", "[0,1]"),
        ("map([[1, 2], [3]], map(#, # + 1))", "[[2,3],[4]]"),
        ("reduce([1, 2, 3], #acc * #, 2)", "12"),
        ("sortBy([{n: 2}, {n: 1}], .n, 'desc') | map(.n)", "[2,1]"),
        ("groupBy(1..4, # % 2)[0]", "[2,4]"),
        ("findLast([1, 2, 3], # < 3)", "2"),
        ("findIndex([1, 2], # > 5)", "-1"),
        ("one([1, 2], # == 1) && none([1], # > 1)", "true"),
        ("count([true, false, true])", "2"),
        ("sum([1, 2.5])", "3.5"),
    ]);
}

#[test]
fn built_in_functions() {
    all_equal(&[
        ("median([4, 1, 3, 2])", "2.5"),
        ("max([1, [5, 2]], 3)", "5"),
        ("type(max(1, 1.5))", "\"float\""),
        ("split('a,b,c', ',', 2)", "[\"a\",\"b,c\"]"),
        ("splitAfter('a,b', ',')", "[\"a,\",\"b\"]"),
        ("trim('xxaxx', 'x') + trimSuffix('a.go', '.go')", "\"aa\""),
        ("replace('aaa', 'a', 'b', 2)", "\"bba\""),
        ("indexOf('hello', 'z')", "-1"),
        ("toPairs({a: 1}) | fromPairs() | keys()", "[\"a\"]"),
        ("flatten([1, [2, [3]]])", "[1,2,3]"),
        ("bitnot(0) + bitushr(-5, 2)", "4611686018427387901"),
        ("string([1, 'a', nil, {b: 1.5}])", "\"[1 a \\u003cnil\\u003e map[b:1.5]]\""),
        ("string(1e6) + string(1/0)", "\"1e+06+Inf\""),
        ("fromJSON('[1, 2.0, 1e21, 1e-7]')", "[1,2,1e+21,1e-7]"),
        ("get([1], 5) ?? 'gone'", "\"gone\""),
        ("fromBase64(toBase64('ü'))", "\"ü\""),
        ("asInt('7') + asFloat('0.5')", "7.5"),
        ("toJson({b: 1, a: [nil]})", "\"{\\\"a\\\":[null],\\\"b\\\":1}\""),
    ]);
}

#[test]
fn times() {
    all_equal(&[
        ("now()", "\"2024-03-01T10:00:00Z\""),
        ("now().Format('Mon Jan _2 15:04:05 2006')", "\"Fri Mar  1 10:00:00 2024\""),
        ("now().In(timezone('Europe/Berlin')).Format('15:04 MST')", "\"11:00 CET\""),
        ("date('2024-01-31').AddDate(0, 1, 0).Month().String()", "\"March\""),
        ("(now() - duration('36h')).Weekday().String()", "\"Wednesday\""),
        ("date('2024-03-01T10:00:00.5+02:00').UTC()", "\"2024-03-01T08:00:00.5Z\""),
        ("date('1 2 2024', '2 1 2006')", "\"2024-02-01T00:00:00Z\""),
        ("string(duration('1h1m1.5s'))", "\"1h1m1.5s\""),
        ("now() > date('2024-03-01') && now() < date('2024-03-02')", "true"),
        ("sprig.dateModify('-1h', now())", "\"2024-03-01T09:00:00Z\""),
        ("sprig.date('2006/01/02', now())", "\"2024/03/01\""),
    ]);
}

#[test]
fn functions_of_sprig() {
    all_equal(&[
        ("sprig.title(`it's a-b`) + upper('straße')", "\"It'S A-BSTRAßE\""),
        ("string(fromPairs([[-1.5, 1], [-2.5, 2], [0.5, 3]]))", "\"map[-2.5:2 -1.5:1 0.5:3]\""),
        ("sprig.title('the end') + sprig.untitle('The End')", "\"The Endthe end\""),
        (
            "sprig.snakecase('FooBarHTTP') + sprig.kebabcase('FooBar') + sprig.camelcase('foo_bar')",
            "\"foo_bar_httpfoo-barFooBar\"",
        ),
        (
            "sprig.trunc(-2, 'abc') + sprig.substr(0, 2, 'xyz') + sprig.abbrev(5, 'hello world')",
            "\"bcxyhe...\"",
        ),
        ("sprig.indent(2, 'a\\nb') + sprig.nindent(1, 'c')", "\"  a\\n  b\\n c\""),
        ("sprig.quote('a', 1) + sprig.cat('x', 2)", "\"\\\"a\\\" \\\"1\\\"x 2\""),
        (
            "sprig.sha256sum('') | trimPrefix('e3b0c44298fc1c149afbf4c8996fb924')",
            "\"27ae41e4649b934ca495991b7852b855\"",
        ),
        ("sprig.sha1sum('abc')", "\"a9993e364706816aba3e25717850c26c9cd0d89d\""),
        ("sprig.sha1sum(repeat('a', 64)) == sprig.sha1sum(repeat('a', 63))", "false"),
        ("sprig.urlParse('https://u:p@example.org:8080/a%20b?q=1#top').hostname", "\"example.org\""),
        (
            "sprig.urlJoin(sprig.urlParse('https://u:p@example.org:8080/a?q=1#top'))",
            "\"https://u:p@example.org:8080/a?q=1#top\"",
        ),
        ("sprig.adler32sum('Wikipedia')", "\"300286872\""),
        ("sprig.b32enc('hi') + sprig.b32dec('NBUQ====')", "\"NBUQ====hi\""),
        ("sprig.regexFindAll('a.', 'abacad', -1)", "[\"ab\",\"ac\",\"ad\"]"),
        ("sprig.regexReplaceAll('(a)(b)', 'ab', '${2}${1}')", "\"ba\""),
        ("sprig.regexSplit('[,;]', 'a,b;c', -1)", "[\"a\",\"b\",\"c\"]"),
        ("sprig.add(1, '2', 3.7) + sprig.div(7, 2) + sprig.max(1, 9)", "18"),
        ("sprig.round(2.345, 2)", "2.35"),
        ("sprig.seq(1, 2, 5) + '|' + sprig.seq(3)", "\"1 3 5|1 2 3\""),
        ("sprig.untilStep(5, 0, -2)", "[5,3,1]"),
        ("sprig.coalesce(nil, '', 0, 'x')", "\"x\""),
        ("sprig.merge(sprig.dict('a', 1), sprig.dict('a', 2, 'b', 3))", "{\"a\":1,\"b\":3}"),
        ("sprig.dig('a', 'b', 'none', sprig.dict('a', sprig.dict('c', 1)))", "\"none\""),
        ("sprig.get(sprig.dict('a', 1), 'z') == ''", "true"),
        (
            "sprig.without([1, 2, 3], 2) | sprig2()",
            "error: unknown name sprig2 (1:31)\n | sprig.without([1, 2, 3], 2) | sprig2()\n | ..............................^",
        ),
        ("sprig.chunk(2, [1, 2, 3])", "[[1,2],[3]]"),
        ("sprig.split('.', 'a.b')._1", "\"b\""),
        ("sprig.semver('v1.2.3-rc.1+x').Prerelease()", "\"rc.1\""),
        ("sprig.semverCompare('^1.2', '1.9.0') && !sprig.semverCompare('~1.2', '1.3.0')", "true"),
        ("sprig.clean('/a/../b/./c') + sprig.base('/x/y') + sprig.ext('a.tar.gz')", "\"/b/cy.gz\""),
        ("sprig.typeOf([1]) + sprig.kindOf({})", "\"[]interface {}map\""),
    ]);
}

#[test]
fn paths_into_json() {
    all_equal(&[
        ("jsonpath(workflow.parameters.json, '$.a.b[-1]')", "\"x\""),
        ("jsonpath(workflow.parameters.json, \"$['a']['b'][0:2]\")", "[1,2.5]"),
        ("jsonpath('{\"x\":{\"v\":1},\"y\":{\"v\":2}}', '$..v')", "[1,2]"),
        ("jsonpath('[{\"v\":1},{\"v\":2}]', '$[?(@.v > 1)].v')", "[2]"),
        ("jsonpath('[1,2,3]', '$[0,2]')", "[1,3]"),
        ("jsonpath('{\"a\":[{\"b\":1},{\"b\":2}]}', '$.a[*].b')", "[1,2]"),
    ]);
    assert!(
        evaluate("jsonpath('[1]', '$[3]')").unwrap_err().starts_with("index: invalid token out of range")
    );
}

#[test]
fn problems_are_told_with_their_place() {
    for (text, expected) in [
        ("", "unexpected token EOF"),
        ("1 +", "unexpected token EOF (1:3)\n | 1 +\n | ..^"),
        ("'a", "literal not terminated (1:3)\n | 'a\n | ..^"),
        ("1 @ 2", "unrecognized character: U+0040 '@' (1:3)\n | 1 @ 2\n | ..^"),
        ("1 +\n  *", "unexpected token Operator(\"*\") (2:3)\n |   *\n | ..^"),
        ("'1' == 1", "invalid operation: == (mismatched types string and int) (1:5)\n | '1' == 1\n | ....^"),
        (
            "false && 'a' + 1 == ''",
            "invalid operation: + (mismatched types string and int) (1:14)\n | false && 'a' + 1 == ''\n | .............^",
        ),
        (
            "workflow.parameters.nope + 1",
            "invalid operation: <nil> + int (1:26)\n | workflow.parameters.nope + 1\n | .........................^",
        ),
        ("(nil).a", "type nil has no field a (1:7)\n | (nil).a\n | ......^"),
        (
            "workflow.nope.deeper",
            "cannot fetch deeper from <nil> (1:15)\n | workflow.nope.deeper\n | ..............^",
        ),
        (
            "upper(1)",
            "cannot use int as argument (type string) to call upper  (1:7)\n | upper(1)\n | ......^",
        ),
        ("len()", "invalid number of arguments (expected 1, got 0) (1:1)\n | len()\n | ^"),
        ("#", "cannot use pointer accessor outside predicate (1:1)\n | #\n | ^"),
        (
            "1 ?? 2 + 3",
            "Operator (+) and coalesce expressions (??) cannot be mixed. Wrap either by parentheses. (1:8)\n | 1 ?? 2 + 3\n | .......^",
        ),
        (
            "'x' matches '('",
            "error parsing regexp: missing closing ): `(` (1:5)\n | 'x' matches '('\n | ....^",
        ),
        (
            "sprig.uuidv4()",
            "sprig.uuidv4 is not supported: its outcome is left to chance; use the workflow's uid, or make the value in a step (1:7)\n | sprig.uuidv4()\n | ......^",
        ),
        (
            "workflow.name % 0",
            "invalid operation: string % int (1:15)\n | workflow.name % 0\n | ..............^",
        ),
    ] {
        assert_eq!(evaluate(text).unwrap_err(), expected, "{text}");
    }
}

#[test]
fn missing_names_are_found_by_walking_the_tree() {
    for (text, expected) in [
        ("workflow.parameters.num", vec![]),
        ("workflow.parameters.nope", vec!["workflow.parameters.nope"]),
        ("retries > 1 || lastRetry.status == ''", vec!["retries", "lastRetry.status"]),
        ("a.b ?? c.d", vec!["c.d"]),
        ("a?.b.c", vec![]),
        ("let x = 1; x + y", vec!["y"]),
        ("steps['b'].outputs.result", vec!["steps.b.outputs.result"]),
        ("sprig.upper('x') + sprig.env('HOME')", vec!["sprig.env"]),
        ("nofunc(z)", vec!["nofunc", "z"]),
        ("map([1], # + k)", vec!["k"]),
        ("workflow.parameters", vec![]),
        ("date('2024-01-01').Year()", vec![]),
    ] {
        assert_eq!(program::compile(text).unwrap().missing(&env()), expected, "{text}");
    }
}

#[test]
fn conditions_must_be_booleans() {
    let check = |text: &str| program::compile(text).unwrap().evaluate_bool(&env(), &Limits::DEFAULT, NOW_MS);
    assert_eq!(check("asInt(item) > 2"), Ok(true));
    for (text, shown) in [
        ("item", "3"),
        ("1 + 1", "%!s(int=2)"),
        ("[1.5, 'a']", "[%!s(float64=1.5) a]"),
        ("nil", "%!s(<nil>)"),
    ] {
        let message = format!("unable to cast expression result '{shown}' to bool");
        assert_eq!(check(text), Err(Error::Expression(message)));
    }
}

fn tags(text: &str, rules: &Rules<'_>) -> Result<String, String> {
    let scope: BTreeMap<String, String> = BTreeMap::from([("name".to_owned(), "n".to_owned())]);
    let env = env();
    let with = Expressions { environment: &env, now_ms: NOW_MS };
    substitute_with(text, &scope, &with, rules).map_err(|error| error.to_string())
}

#[test]
fn tags_take_texts_bare_and_the_rest_as_json() {
    let same = |text: &str, expected: &str| assert_eq!(tags(text, &Rules::STRICT_NODES).unwrap(), expected);
    same("{{name}} {{=1 + 1}} {{= 'q\\\"' }}", "n 2 q\\\"");
    same("{{=['a', 1]}}", "[\\\"a\\\",1]");
    same("{{=now()}}", "2024-03-01T10:00:00Z");
    same("{{=\\\"x\\\" + 'y'}}", "xy");
    same("{{=toJson('<')}}", "\\\"\\u003c\\\"".replace("\\u003c", "\\\\u003c").as_str());
}

#[test]
fn tags_that_cannot_be_evaluated_yet_stay() {
    for text in [
        "{{=nope}}",
        "{{=retries + 1}}",
        "{{=workflow.status}}",
        "{{=workflow.parameters.nope}}",
        "{{=f(1)}}",
    ] {
        assert_eq!(tags(text, &Rules::LENIENT).unwrap(), text);
        assert_eq!(tags(text, &Rules::STRICT_NODES).unwrap(), text);
    }
    // Lenient passes forgive what fails, not what can't be read.
    for text in ["{{=1 % 0}}", "{{=nil}}", "{{='a' + 1}}", "{{=1/0}}"] {
        assert_eq!(tags(text, &Rules::LENIENT).unwrap(), text);
        assert!(tags(text, &Rules::STRICT_NODES).is_err());
    }
    assert_eq!(tags("{{=nil}}", &Rules::STRICT_NODES).unwrap_err(), "failed to evaluate expression \"nil\"");
    let message = "failed to marshal evaluated expression: json: unsupported value: +Inf";
    assert_eq!(tags("{{=1/0}}", &Rules::STRICT_NODES).unwrap_err(), message);
    assert_eq!(
        tags("{{=}}", &Rules::LENIENT).unwrap_err(),
        "failed to evaluate expression: unexpected token EOF"
    );
    // A step's output that is not there is waited for.
    let message = "failed to resolve {{=steps.b.outputs.result}}";
    assert_eq!(tags("{{=steps.b.outputs.result}}", &Rules::STRICT_NODES).unwrap_err(), message);
    assert_eq!(tags("{{=steps?.b?.outputs ?? 'x'}}", &Rules::STRICT_NODES).unwrap(), "x");
}
