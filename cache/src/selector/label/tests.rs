use proptest::prelude::*;

use super::super::{MAX_SELECTOR_BYTES, MAX_SELECTOR_TERMS};
use super::*;

fn refusal(text: &str) -> String {
    LabelSelector::parse(text).unwrap_err().to_string()
}

/// What no recording shows; taken from the grammar.
#[test]
fn refusals_name_what_was_found() {
    let table = [
        (
            "!",
            "unable to parse requirement: found '', expected: identifier",
        ),
        (
            "a in",
            "unable to parse requirement: found '', expected: '('",
        ),
        (
            "a in (",
            "unable to parse requirement: found '', expected: ',', ')' or identifier",
        ),
        (
            "a in (,",
            "unable to parse requirement: found '', expected: ',', or identifier",
        ),
        (
            "a in (,,",
            "unable to parse requirement: found '', expected: ',', or identifier",
        ),
        (
            "a in (x y)",
            "unable to parse requirement: found 'y', expected: ',' or ')'",
        ),
        (
            "a in (x,=)",
            "unable to parse requirement: found '=', expected: ',', or identifier",
        ),
        (
            "a in (=",
            "unable to parse requirement: found '=', expected: ',', ')' or identifier",
        ),
        (
            "a=(",
            "unable to parse requirement: found '(', expected: identifier",
        ),
        ("a,=", "found '=', expected: identifier after ','"),
        (
            ")",
            "found ')', expected: !, identifier, or 'end of string'",
        ),
        ("!a b", "found 'b', expected: ',' or 'end of string'"),
        (
            "a>",
            "unable to parse requirement: values[0]: Invalid value: \"\": for 'Gt', 'Lt' operators, the value must be an integer",
        ),
        (
            "/a",
            "unable to parse requirement: <nil>: Invalid value: \"/a\": prefix part must be non-empty",
        ),
    ];
    for (text, message) in table {
        let expected = message.replace("found '', expected: '('", "found '' expected: '('");
        assert_eq!(refusal(text), expected, "{text}");
    }
    let name_rule = refusal("-=").replace("<nil>: Invalid value: \"-\": ", "");
    let name_rule = name_rule
        .strip_prefix("unable to parse requirement: ")
        .unwrap();
    assert_eq!(
        refusal("x/"),
        format!(
            "unable to parse requirement: <nil>: Invalid value: \"x/\": name part must be non-empty; {name_rule}"
        )
    );
}

#[test]
fn several_problems_are_listed_together() {
    let one = refusal("a in (-x)");
    let one = one.strip_prefix("unable to parse requirement: ").unwrap();
    let other = one.replace("values[0]", "values[1]").replace("-x", "-y");
    assert_eq!(
        refusal("a in (-y,-x,-x)"),
        format!("unable to parse requirement: [{one}, {other}]")
    );
    assert!(
        refusal("a>-")
            .starts_with("unable to parse requirement: [values[0]: Invalid value: \"-\": for 'Gt'")
    );
}

#[test]
fn empty_values_are_values() {
    let values = |text: &str| {
        LabelSelector::parse(text).unwrap().requirements()[0]
            .values
            .join("|")
    };
    let table = [
        ("a in ()", ""),
        ("a in (,)", ""),
        ("a in (,,)", ""),
        ("a in (x,,y)", "|x|y"),
        ("a in (x,y)", "x|y"),
        ("a in (y,x,y)", "x|y"),
        ("a in (x,)", "|x"),
        ("a in (,x)", "|x"),
        ("a=", ""),
        ("in in (in,notin)", "in|notin"),
    ];
    for (text, expected) in table {
        assert_eq!(values(text), expected, "{text}");
    }
}

#[test]
fn a_nul_ends_a_token_as_in_go() {
    assert_eq!(
        LabelSelector::parse("a=\0b").unwrap(),
        LabelSelector::parse("a=b").unwrap()
    );
    assert_eq!(
        LabelSelector::parse("a\0=b").unwrap(),
        LabelSelector::parse("a=b").unwrap()
    );
    assert_eq!(
        LabelSelector::parse("a \0,,,").unwrap(),
        LabelSelector::parse("a").unwrap()
    );
}

#[test]
fn the_canonical_text_is_sorted() {
    let table = [
        ("", ""),
        (" c , !b,a  notin ( y , x ) ", "a notin (x,y),!b,c"),
        ("a in (x),b notin (x)", "a=x,b!=x"),
        ("a==x,a>1,a<3", "a=x,a>1,a<3"),
        ("a in (,x)", "a in (,x)"),
    ];
    for (text, canonical) in table {
        assert_eq!(LabelSelector::parse(text).unwrap().to_string(), canonical);
    }
}

#[test]
fn a_huge_selector_is_not_parsed() {
    let long = "a".repeat(MAX_SELECTOR_BYTES + 1);
    let many = "a,".repeat(MAX_SELECTOR_TERMS) + "a";
    for text in [long, many] {
        assert_eq!(LabelSelector::parse(&text), Err(SelectorError::TooLarge));
    }
    assert!(LabelSelector::parse(&("a,".repeat(MAX_SELECTOR_TERMS - 1) + "a")).is_ok());
}

proptest! {
    #[test]
    fn no_text_is_a_panic(text: String, near in "[a!=()<>, \u{0}]{0,12}") {
        for text in [text, near] {
            if let Ok(selector) = LabelSelector::parse(&text) {
                prop_assert_eq!(LabelSelector::parse(&selector.to_string()), Ok(selector));
            }
        }
    }
}
