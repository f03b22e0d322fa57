use super::*;

fn holds(text: &str) -> bool {
    evaluate(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn message(text: &str) -> String {
    evaluate(text).expect_err(text).to_string()
}

#[test]
fn true_conditions() {
    for text in [
        "",
        "a == a",
        "a != A",
        "true",
        "!false",
        "1 + 1 == 2",
        "7 % 3 == 1",
        "2 ** 3 == 8",
        "1 == 1.0",
        "0x10 == 16",
        "2 + 3 * 4 == 14",
        "(2 + 3) * 4 == 20",
        "10 - 4 - 3 == 3",
        "a == b || b == b",
        "a == a && b == b",
        "!(a == b)",
        "a in (a, b)",
        "'x y' in ('x y', 'z')",
        "'blue' =~ '^bl'",
        "'blue' !~ 'red'",
        "'10' < '9'",
        "a < b",
        "a + b == ab",
        "'a' + 1 == 'a1'",
        "yes == yes",
        "'2024-01-02' < '2024-01-03'",
        "true ? true : false",
        "false && (1 < a) || true",
        "-1 < 0",
        "'it\\'s' == 'it\\'s'",
        "[a-b] == 'a-b'",
    ] {
        assert!(holds(text), "{text}");
    }
}

#[test]
fn false_conditions() {
    for text in ["a == b", "false", "c in (a, b)", "'a' == 1", "1 > 2", "'blue' =~ 'red'", "'' != ''"] {
        assert!(!holds(text), "{text}");
    }
}

#[test]
fn messages_are_those_that_users_of_argo_know() {
    for (text, expected) in [
        (
            "'a' =~ '('",
            "Invalid 'when' expression ''a' =~ '('': error parsing regexp: missing closing ): `(`",
        ),
        (
            "a-b == a-b",
            "Failed to evaluate 'when' expresion 'a-b == a-b': Value 'a' cannot be used with the modifier '-', it is not a number",
        ),
        (
            "'2024-01-02' =~ '2024'",
            "Failed to evaluate 'when' expresion ''2024-01-02' =~ '2024'': Value '1.7041536e+09' cannot be used with the comparator '=~', it is not a number",
        ),
        (
            " == ''",
            "Invalid 'when' expression ' == ''': Cannot transition token types from UNKNOWN [<nil>] to COMPARATOR [==]",
        ),
        (
            "1e3 == 1000",
            "Invalid 'when' expression '1e3 == 1000': Cannot transition token types from NUMERIC [1] to VARIABLE [e3]",
        ),
        ("len('a') == 1", "Invalid 'when' expression 'len('a') == 1': Undefined function len"),
        (
            "'a' > 1",
            "Failed to evaluate 'when' expresion ''a' > 1': Value 'a' cannot be used with the comparator '>', it is not a number",
        ),
        ("1 + 1", "Expected boolean evaluation for '1 + 1'. Got 2"),
        ("hello", "Expected boolean evaluation for 'hello'. Got hello"),
        ("a ==", "Invalid 'when' expression 'a ==': Unexpected end of expression"),
        ("(a == b", "Invalid 'when' expression '(a == b': Unbalanced parenthesis"),
        ("'a == b", "Invalid 'when' expression ''a == b': Unclosed string literal"),
        (
            "a = b",
            "Invalid 'when' expression 'a = b': Invalid token: '=' (hint: try wrapping the affected expression in quotes (\"))",
        ),
    ] {
        assert_eq!(message(text), expected);
    }
}

#[test]
fn hostile_nesting_and_length_end_in_an_error() {
    let deep = format!("{}a{}", "(".repeat(10_000), ")".repeat(10_000));
    assert!(message(&deep).contains("nested too deeply"));
    assert!(message(&"a".repeat(Limits::DEFAULT.condition_bytes_max + 1)).contains("longer than"));
    assert!(holds(&format!("1 < 2{}", " && 1 < 2".repeat(5_000))));
}

proptest::proptest! {
    #[test]
    fn any_text_ends(text in "[ab1.'\"()\\[\\],&|!=<>~+*/%?:^ \\\\-]{0,40}") {
        let _ = evaluate(&text);
    }
}

#[test]
fn words_of_a_cron_workflow_are_parameters_that_are_not_there() {
    assert_eq!(super::evaluate_literal("1 == 2"), Ok(false));
    assert_eq!(super::evaluate_literal("'a' == 'a' && true"), Ok(true));
    let error = super::evaluate_literal("a == a").unwrap_err().to_string();
    assert_eq!(error, "Failed to evaluate 'when' expresion 'a == a': No parameter 'a' found.");
}
