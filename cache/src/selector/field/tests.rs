use proptest::prelude::*;

use super::*;
use crate::encoding::Encoding;
use crate::encoding::tests::{Pod, pods};

#[test]
fn the_first_error_is_that_of_the_sorted_order() {
    let refusal = |text: &str| FieldSelector::parse(text).unwrap_err().to_string();
    assert_eq!(
        refusal("z,a=="),
        "invalid selector: 'z,a=='; can't understand 'z'"
    );
    assert_eq!(
        refusal("z,a=\\x"),
        "invalid field selector: invalid escape sequence: \\x"
    );
    assert_eq!(
        refusal("a===b"),
        "invalid field selector: unescaped character in value: 61"
    );
    assert_eq!(
        refusal("a\\,b"),
        "invalid selector: 'a\\,b'; can't understand 'a\\,b'"
    );
    assert_eq!(
        refusal("a=é\\é"),
        "invalid field selector: invalid escape sequence: \\é"
    );
}

#[test]
fn the_first_required_value_is_that_of_the_sorted_order() {
    let selector = FieldSelector::parse("n=b,n==c,n!=0,n=a").unwrap();
    assert_eq!(selector.to_string(), "n!=0,n=c,n=a,n=b");
    assert_eq!(selector.required_value("n"), Some("c"));
    assert_eq!(selector.required_value("m"), None);
    assert!(FieldSelector::parse(",,").unwrap().is_empty());
}

#[test]
fn the_trigger_is_pinned_by_equality_and_by_its_alias() {
    let value = |text: &str| {
        let bound = FieldSelector::parse(text)
            .unwrap()
            .bind(&pods().fields)
            .unwrap();
        bound.trigger_value().map(str::to_owned)
    };
    assert_eq!(
        value("status.phase=x,spec.nodeName=n1").as_deref(),
        Some("n1")
    );
    assert_eq!(value("spec.host=n1").as_deref(), Some("n1"));
    assert_eq!(value("spec.nodeName=").as_deref(), Some(""));
    assert_eq!(value("spec.nodeName!=n1"), None);
    assert_eq!(value("metadata.name=n1"), None);
}

#[test]
fn an_unknown_label_is_named() {
    let selector = FieldSelector::parse("spec.nodeName=a,spec.z=1,spec.b=2").unwrap();
    let unsupported = selector.bind(&pods().fields).unwrap_err();
    assert_eq!(&*unsupported.label, "spec.b");
}

#[test]
fn every_term_must_hold() {
    let mut pod = Pod::named("a");
    pod.node_name = Some("n1".to_owned());
    let object = Object::decode(Encoding::Json, &pods(), pod.json().as_bytes()).unwrap();
    let matches = |text: &str| {
        FieldSelector::parse(text)
            .unwrap()
            .bind(&pods().fields)
            .unwrap()
            .matches(&object)
    };
    assert!(matches(""));
    assert!(matches(
        "spec.nodeName=n1,metadata.name=a,metadata.namespace!=x"
    ));
    assert!(!matches("spec.nodeName=n1,metadata.name=b"));
    assert!(!matches("metadata.name=a,metadata.name=b"));
    assert!(BoundFieldSelector::default().matches(&object));
}

#[test]
fn a_huge_selector_is_not_parsed() {
    let long = "a".repeat(MAX_SELECTOR_BYTES + 1);
    let many = "a=b,".repeat(MAX_SELECTOR_TERMS + 1);
    for text in [long, many] {
        assert_eq!(FieldSelector::parse(&text), Err(SelectorError::TooLarge));
    }
}

proptest! {
    #[test]
    fn no_text_is_a_panic(text: String, near in "[ab!=,\\\\é]{0,12}") {
        for text in [text, near] {
            if let Ok(selector) = FieldSelector::parse(&text) {
                let mut again = FieldSelector::parse(&selector.to_string()).unwrap();
                again.requirements.sort_by(|a, b| (&a.key, &a.value).cmp(&(&b.key, &b.value)));
                let mut sorted = selector;
                sorted.requirements.sort_by(|a, b| (&a.key, &a.value).cmp(&(&b.key, &b.value)));
                prop_assert_eq!(again, sorted);
            }
        }
    }
}
