//! Whatever a text holds, reading and evaluating it ends, soon and without a panic.

use std::sync::Arc;

use argosy_expr::{Env, Expressions, Limits, Rules, Value, program, substitute_with};
use proptest::prelude::*;

fn evaluate(text: &str) -> Result<Value, String> {
    let env: Env =
        [("s", Value::from("text")), ("n", Value::Int(3)), ("w.p.a", Value::from("1"))].into_iter().collect();
    let program = program::compile(text).map_err(|error| error.to_string())?;
    program.evaluate(&env, &Limits::DEFAULT, 0).map_err(|error| error.to_string())
}

#[track_caller]
fn refused(text: &str, part: &str) {
    let message = evaluate(text).expect_err("must be refused");
    assert!(message.contains(part), "{message:.200}");
}

#[test]
fn nesting_is_bounded() {
    let many = 20_000;
    refused(&"(".repeat(many), "nested deeper");
    refused(&"[".repeat(many), "nested deeper");
    refused(&"!".repeat(many), "nested deeper");
    refused(&format!("1{}", " + 1".repeat(10_000)), "nested too deeply");
    refused(&format!("n{}", ".a".repeat(10_000)), "nested too deeply");
    refused(&"if true {".repeat(5_000), "nested deeper");
    refused(&format!("true{}", " ?: true".repeat(5_000)), "nested");
    refused(&"1 ? ".repeat(5_000), "nested");
    refused(&format!("{}1{}", "1 < (".repeat(30), " < 2)".repeat(30)), "nested too deeply");
    refused(&"x".repeat(100_000), "longer than");
}

#[test]
fn what_is_within_the_bounds_is_evaluated() {
    assert!(evaluate(&format!("1{}", " + 1".repeat(390))).is_ok());
    assert!(evaluate(&format!("{}1{}", "(".repeat(45), ")".repeat(45))).is_ok());
    assert!(evaluate(&format!("{}1{}", "map([1], ".repeat(45), ")".repeat(45))).is_ok());
    assert!(evaluate(&format!("{}1{}", "{a: [".repeat(45), "]}".repeat(45))).is_ok());
    assert!(evaluate("len(map(1..100000, # * 2 + 1))").is_ok());
}

#[test]
fn loops_and_growth_are_bounded() {
    refused("1..2000000000", "memory budget exceeded");
    refused("repeat('x', 2000000)", "memory budget exceeded");
    refused("reduce(1..40, #acc + #acc, 'x')", "memory budget exceeded");
    refused("reduce(1..1000, concat(#acc, #acc), [1])", "steps");
    refused("reduce(1..1000, [#acc], [])", "nested deeper");
    refused("all(1..3000, all(1..3000, all(1..3000, true)))", "");
    refused("len(map(1..1000, map(1..1000, map(1..1000, #))))", "");
    refused("string(reduce(1..60, [#acc, #acc], []))", "longer than");
    refused("reduce(1..60, [#acc, #acc], []) == reduce(1..60, [#acc, #acc], [])", "steps");
    refused("flatten(reduce(1..60, [#acc, #acc], []))", "steps");
    refused("uniq(1..100000)", "steps");
    refused("sprig.indent(1000000, repeat('\\n', 1000000))", "memory budget exceeded");
    refused("sprig.regexReplaceAll('', repeat('a', 100000), repeat('b', 100000))", "budget");
    refused("sprig.untilStep(0, 9000000000000000000, 1)", "memory budget exceeded");
    refused("fromJSON(repeat('[', 100000))", "");
    refused("'a' matches 'a{1000}{1000}{1000}'", "error parsing regexp");
    refused("map(1..100000, 'a' matches 'a')", "steps");
}

#[test]
fn patterns_take_time_linear_in_the_text() {
    let value = evaluate("repeat('a', 30000) + 'b' matches '^(a+)+$'").unwrap();
    assert!(matches!(value, Value::Bool(false)));
}

#[test]
fn odd_numbers_do_not_panic() {
    for text in [
        "(-9223372036854775807 - 1) % -1",
        "sprig.div(-9223372036854775807 - 1, -1)",
        "-(-9223372036854775807 - 1)",
        "abs(-9223372036854775807 - 1)",
        "bitshl(1, 9223372036854775807)",
        "[1][-9223372036854775807 - 1:9223372036854775807]",
        "'é'[1:2]",
        "(1..3)[9223372036854775807 ?: 0]",
        "date('2024-01-01').AddDate(9223372036854775807, -9223372036854775807, 1)",
        "date('9999-12-31') + duration('2562047h47m16s')",
        "date('0000-01-01')",
        "duration('9999999999999999999999h')",
        "duration('.s')",
        "duration('9223372036854775807ns').Round(duration('2562047h'))",
        "int(1e300) + int(0.0/0.0)",
        "take([1], -1)",
        "sprig.substr(-5, -9, 'é') + sprig.trunc(1, 'é') + sprig.abbrevboth(9, 8, 'éééééééééééééé')",
        "sprig.round(1.5, 2147483647)",
        "sprig.slice([1], 5, 2)",
        "sprig.chunk(0, [1])",
        "sprig.wrap(-1, 'a b')",
        "sprig.repeat(-1, 'a')",
        "sprig.semver('99999999999999999999.0.0')",
        "jsonpath('[1,2]', '$[9223372036854775807:-9223372036854775808:9223372036854775807]')",
        "jsonpath('{}', '$[')",
        "jsonpath('{}', '$..')",
        "now().Format('')",
        "split('abc', '', 2)",
        "sprig.splitn('', 2, 'abc')",
        "replace('abc', '', '-', -1)",
    ] {
        let _ = evaluate(text).map(|value| value.json(true, 10_000));
    }
}

fn words() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "1",
        "2.5",
        "'a'",
        "\"é\"",
        "nil",
        "true",
        "s",
        "n",
        "w.p.a",
        "[",
        "]",
        "{",
        "}",
        "(",
        ")",
        ",",
        ":",
        ";",
        ".",
        "?.",
        "?",
        "??",
        "#",
        "#acc",
        ".x",
        "|",
        "||",
        "+",
        "-",
        "*",
        "/",
        "%",
        "**",
        "..",
        "==",
        "<",
        ">=",
        "in",
        "not",
        "matches",
        "let x =",
        "x",
        "if",
        "else",
        "map(",
        "filter(",
        "reduce(",
        "len(",
        "join(",
        "split(",
        "date(",
        "duration('1h')",
        "now()",
        ".Format(",
        "sprig.",
        "sprig.dict(",
        "sprig.trunc(",
        "jsonpath(",
        "`r`",
        "toJSON(",
        "fromJSON(",
        "keys(",
        "sort(",
        "string(",
        "0x",
        "1e",
        "'",
        "\\",
        "//",
        "/*",
        "$env",
        "\n",
    ]);
    prop::collection::vec(word, 0..24).prop_map(|words| words.join(" "))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_words_end(text in words()) {
        let _ = evaluate(&text).map(|value| (value.json(false, 10_000), value.display(10_000)));
    }

    #[test]
    fn any_tag_ends(text in "[{}=a-c?.'\\\\\"\\[\\]()0-9 +u]{0,40}") {
        let env: Env = [("a", Value::from("{{=b}}")), ("b.c", Value::Int(1))].into_iter().collect();
        let scope = std::collections::BTreeMap::from([("a".to_owned(), "1".to_owned())]);
        let with = Expressions { environment: &env, now_ms: 0 };
        for rules in [Rules::LENIENT, Rules::STRICT_NODES, Rules::STRICT] {
            let _ = substitute_with(&text, &scope, &with, &rules);
        }
    }

    #[test]
    fn any_text_ends(text in "\\PC{0,60}") {
        let _ = evaluate(&text);
    }

    #[test]
    fn any_argument_ends(
        name in prop::sample::select(vec!["date", "duration", "timezone", "fromJSON", "fromBase64", "int", "float"]),
        text in "\\PC{0,30}",
    ) {
        let mut env = Env::default();
        env.insert("t", Value::Text(Arc::from(text.as_str())));
        let program = program::compile(&format!("{name}(t)")).unwrap();
        let _ = program.evaluate(&env, &Limits::DEFAULT, 0);
        let program = program::compile("date('2024-01-02', t) ?? now().Format(t)").unwrap();
        let _ = program.evaluate(&env, &Limits::DEFAULT, 0);
        let program = program::compile("[s(t), sprig.semverCompare(t, '1.2.3'), jsonpath('{}', t), 'x' matches t]");
        let _ = program.unwrap().evaluate(&env, &Limits::DEFAULT, 0);
        for text in ["now().Format(t)", "jsonpath('{}', '$' + t)", "'x' matches t", "sprig.semverCompare(t, '1.2.3')"] {
            let _ = program::compile(text).unwrap().evaluate(&env, &Limits::DEFAULT, 0);
        }
    }
}
