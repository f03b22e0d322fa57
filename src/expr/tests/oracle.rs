//! Random expressions, against another implementation of the language.
//!
//! The other one checks no types beforehand, so expressions here are made of parts whose types fit. Left out is what it
//! does otherwise than the original: `toJSON` there does not indent.

use argosy_expr::{Env, Limits, program};
use expr::{Context, Value as Other};
use proptest::prelude::*;

fn whole() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![(-20_i64..20).prop_map(|number| number.to_string()), Just("n".to_owned())];
    leaf.prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            (inner.clone(), prop::sample::select(vec!["+", "-", "*"]), inner.clone())
                .prop_map(|(left, operator, right)| format!("({left} {operator} {right})")),
            (inner.clone(), 1_i64..9).prop_map(|(left, right)| format!("({left} % {right})")),
            inner.clone().prop_map(|number| format!("abs({number})")),
            (inner.clone(), inner.clone()).prop_map(|(left, right)| format!("max({left}, {right})")),
            (inner.clone(), inner.clone(), inner.clone())
                .prop_map(|(left, right, other)| format!("({left} < {right} ? {other} : {left})")),
            (inner.clone(), inner.clone()).prop_map(|(left, right)| format!("bitxor({left}, {right})")),
            list_of(inner.clone()).prop_map(|list| format!("len({list})")),
            list_of(inner).prop_map(|list| format!("(first({list}) ?? 0)")),
        ]
    })
}

fn list_of(item: impl Strategy<Value = String> + 'static) -> impl Strategy<Value = String> {
    let list = prop::collection::vec(item, 0..4).prop_map(|items| format!("[{}]", items.join(", ")));
    (
        list,
        prop::sample::select(vec![
            "LIST",
            "map(LIST, # * 2)",
            "filter(LIST, # > 1)",
            "sort(LIST)",
            "sort(LIST, 'desc')",
            "reverse(LIST)",
            "uniq(LIST)",
            "take(LIST, 2)",
            "concat(LIST, [7])",
            "LIST[1:]",
            "LIST[:-1]",
            "LIST | map(# + #index)",
            "sortBy(LIST, -#)",
            "[reduce(LIST, #acc + #, 1), sum(LIST), count(LIST, # > 0)]",
            "[mean(LIST), median(LIST)]",
            "[findIndex(LIST, # == 2), findLastIndex(LIST, # < 2)]",
            "flatten([LIST, [LIST]])",
        ]),
    )
        .prop_map(|(list, shape)| shape.replace("LIST", &list))
}

fn text() -> impl Strategy<Value = String> {
    let leaf = prop_oneof!["[a-cX, ]{0,5}".prop_map(|text| format!("'{text}'")), Just("s".to_owned())];
    leaf.prop_recursive(3, 16, 2, |inner| {
        (
            inner.clone(),
            inner,
            prop::sample::select(vec![
                "(@ + ~)",
                "upper(@)",
                "lower(@)",
                "trim(@)",
                "trimPrefix(@, ~)",
                "trimSuffix(@, ~)",
                "replace(@, ~, '-')",
                "join(split(@, 'a'), ~)",
                "(@ < ~ ? @ : ~)",
                "(@ contains ~ ? 'yes' : 'no')",
                "(@ startsWith ~ ? @[1:] : @[:2])",
                "string([@, ~])",
                "toBase64(@)",
                "fromJSON(toJSON(@))",
                "repeat(@, 2)",
                "(@ in [~, 'a'] ? @ : ~)",
                "(@ matches '^[ab]+' ? @ : ~)",
            ]),
        )
            .prop_map(|(left, right, shape)| shape.replace('~', &right).replace('@', &left))
    })
}

/// The parser of the other one takes time exponential in the depth of parentheses: what follows is made of simple parts.
fn number() -> impl Strategy<Value = String> {
    prop_oneof![(-20_i64..20).prop_map(|number| number.to_string()), Just("n".to_owned())]
}

fn word() -> impl Strategy<Value = String> {
    prop_oneof!["[a-cX, ]{0,5}".prop_map(|text| format!("'{text}'")), Just("s".to_owned())]
}

fn numbers() -> impl Strategy<Value = String> {
    prop::collection::vec(number(), 0..4).prop_map(|items| format!("[{}]", items.join(", ")))
}

/// Conditions over whole numbers, texts and lists.
fn condition() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("true".to_owned()),
        Just("false".to_owned()),
        (number(), prop::sample::select(vec!["<", "<=", ">", ">=", "==", "!="]), number())
            .prop_map(|(left, operator, right)| format!("({left} {operator} {right})")),
        (
            word(),
            prop::sample::select(vec!["<", ">", "==", "!=", "contains", "startsWith", "endsWith"]),
            word()
        )
            .prop_map(|(left, operator, right)| format!("({left} {operator} {right})")),
        (number(), numbers()).prop_map(|(item, list)| format!("({item} in {list})")),
        (number(), numbers()).prop_map(|(item, list)| format!("({item} not in {list})")),
        (word(), word()).prop_map(|(part, whole)| format!("hasPrefix({whole}, {part})")),
        (prop::sample::select(vec!["any", "all", "none", "one"]), numbers(), 0_i64..5)
            .prop_map(|(name, list, bound)| format!("{name}({list}, # > {bound})")),
        numbers().prop_map(|list| format!("({list} == {list})")),
    ];
    leaf.prop_recursive(2, 4, 2, |inner| {
        prop_oneof![
            (inner.clone(), prop::sample::select(vec!["&&", "||", "and", "or", "==", "!="]), inner.clone())
                .prop_map(|(left, operator, right)| format!("({left} {operator} {right})")),
            inner.clone().prop_map(|condition| format!("(not {condition})")),
            inner.prop_map(|condition| format!("(!{condition})")),
        ]
    })
}

/// Numbers with a point, in steps that doubles hold exactly.
fn double() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        (-40_i64..40)
            .prop_map(|quarters| format!("{}", quarters as f64 / 4.0))
            .prop_map(|text| { if text.contains('.') { text } else { format!("{text}.0") } }),
        number().prop_map(|number| format!("float({number})")),
    ];
    leaf.prop_recursive(2, 4, 2, |inner| {
        prop_oneof![
            (inner.clone(), prop::sample::select(vec!["+", "-", "*"]), inner.clone())
                .prop_map(|(left, operator, right)| format!("({left} {operator} {right})")),
            (inner.clone(), prop::sample::select(vec!["floor", "ceil", "abs"]))
                .prop_map(|(number, name)| format!("{name}({number})")),
            (inner, number()).prop_map(|(left, right)| format!("({left} + {right})")),
        ]
    })
}

/// Maps and what is asked of them.
fn map() -> impl Strategy<Value = String> {
    (
        number(),
        word(),
        condition(),
        prop::sample::select(vec![
            "{a: @, b: ~}.a",
            "{a: @, b: ~}['b']",
            "{a: {b: @}}.a.b",
            "({a: @}?.z?.y ?? @)",
            "({a: nil}.a ?? ~)",
            "len({a: @, b: ~, c: ^})",
            "('a' in {a: @} ? @ : 0)",
            "fromJSON(toJSON({a: @, b: [~, ^]})).b",
            "sort(keys({b: @, a: ~}))",
            "map([{k: @}, {k: 3}], #.k)",
            "filter([{k: @}, {k: 3}], #.k > 2)[0:1]",
            "find([{k: @, v: ~}], #.v == ~).k",
            "(^ ? {a: @} : {a: 0}).a",
            "get({a: @}, 'a')",
            "groupBy([@, 3], # > 2 ? 'more' : 'less').more",
            "sort(map(toPairs({a: @}), #[1]))",
            "fromPairs([['a', @]]).a",
        ]),
    )
        .prop_map(|(number, text, flag, shape)| {
            shape.replace('^', &flag).replace('~', &text).replace('@', &number)
        })
}

/// Names, pipes and blocks.
fn program_text() -> impl Strategy<Value = String> {
    (
        number(),
        word(),
        numbers(),
        prop::sample::select(vec![
            "let x = @; x + x",
            "let x = @; let y = x * 2; [x, y]",
            "let list = ^; len(list) > 0 ? list[0] : @",
            "^ | filter(# != @) | map(# + 1) | len()",
            "~ | split(',') | map(upper(#)) | join('-')",
            "if @ > 2 { ~ } else { 'no' }",
            "(@..(@ + 3)) | sum()",
            "reduce(^, #acc + # * #index, @)",
            "[@, ~, nil, ^] | len()",
            "indexOf(~, 'a') + lastIndexOf(~, 'a')",
            "int(string(@)) == @",
            "string(float(@) + 0.5)",
            "type(^) + type(~) + type(@)",
            "min(^ | concat([@])) + max(^ | concat([@]))",
        ]),
    )
        .prop_map(|(number, text, list, shape)| {
            shape.replace('^', &list).replace('~', &text).replace('@', &number)
        })
}

fn json(value: &Other) -> String {
    match value {
        Other::Nil => "null".to_owned(),
        Other::Bool(flag) => flag.to_string(),
        Other::Integer(number) => number.to_string(),
        Other::Float(number) => {
            let whole = serde_json::Value::from(*number).to_string();
            whole.strip_suffix(".0").map_or_else(|| whole.clone(), str::to_owned)
        }
        Other::String(text) => serde_json::Value::from(text.as_str()).to_string(),
        Other::Array(items) => format!("[{}]", items.iter().map(json).collect::<Vec<_>>().join(",")),
        Other::Map(entries) => {
            let sorted: std::collections::BTreeMap<String, String> =
                entries.iter().map(|(key, value)| (key.clone(), json(value))).collect();
            let pairs: Vec<String> = sorted
                .iter()
                .map(|(key, value)| format!("{}:{value}", serde_json::Value::from(key.as_str())))
                .collect();
            format!("{{{}}}", pairs.join(","))
        }
        Other::Bytes(_) | Other::KeyedMap(_) => format!("{value:?}"),
    }
}

fn compare(text: &str) -> Result<(), TestCaseError> {
    let mut context = Context::default();
    context.insert("n".to_owned(), 5_i64);
    context.insert("s".to_owned(), "abc".to_owned());
    // The other one panics on some texts; there is nothing to compare with then.
    let theirs = std::panic::catch_unwind(|| expr::eval(text, &context).map(|value| json(&value)));
    let Ok(theirs) = theirs else { return Ok(()) };
    let env: Env =
        [("n", argosy_expr::Value::Int(5)), ("s", argosy_expr::Value::from("abc"))].into_iter().collect();
    let ours = program::compile(text)
        .and_then(|program| program.evaluate(&env, &Limits::DEFAULT, 0))
        .map(|value| value.json(false, 1_000_000).unwrap_or_else(|message| message));
    match (ours, theirs) {
        (Ok(ours), Ok(theirs)) => prop_assert_eq!(ours, theirs, "{}", text),
        (Err(_), Err(_)) => {}
        (ours, theirs) => {
            prop_assert!(false, "{text}: {ours:?} but {:?}", theirs.map_err(|error| error.to_string()))
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whole_numbers_agree(text in whole()) {
        compare(&text)?;
    }

    #[test]
    fn lists_agree(text in list_of(whole())) {
        compare(&text)?;
    }

    #[test]
    fn texts_agree(text in text()) {
        compare(&text)?;
    }

    #[test]
    fn conditions_agree(text in condition()) {
        compare(&text)?;
    }

    #[test]
    fn doubles_agree(text in double()) {
        compare(&text)?;
    }

    #[test]
    fn maps_agree(text in map()) {
        compare(&text)?;
    }

    #[test]
    fn names_and_pipes_agree(text in program_text()) {
        compare(&text)?;
    }
}
