//! Selectors against the embedded apiserver's, and against their own text.

use watershed_cache::selector::{
    FieldOperator, FieldSelector, LabelOperator, LabelSelector, SelectorError,
};
use watershed_loadtest::apiserver::selectors as judge;

/// A label selector: the same terms or the same error, and its text parses to itself.
pub fn labels(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let theirs = judge::LabelSelector::parse(text).map_err(|error| error.0);
    let ours = match LabelSelector::parse(text) {
        Ok(selector) => selector,
        Err(SelectorError::TooLarge) => return,
        Err(SelectorError::Invalid(error)) => return assert_eq!(theirs.err(), Some(error)),
    };
    let operator = |operator| match operator {
        judge::LabelOperator::In => LabelOperator::In,
        judge::LabelOperator::NotIn => LabelOperator::NotIn,
        judge::LabelOperator::Exists => LabelOperator::Exists,
        judge::LabelOperator::DoesNotExist => LabelOperator::DoesNotExist,
        judge::LabelOperator::GreaterThan => LabelOperator::GreaterThan,
        judge::LabelOperator::LessThan => LabelOperator::LessThan,
    };
    let theirs = theirs.expect("ours parsed");
    assert_eq!(ours.requirements().len(), theirs.requirements().len());
    for (ours, theirs) in ours.requirements().iter().zip(theirs.requirements()) {
        assert_eq!(
            (&*ours.key, ours.operator),
            (&*theirs.key, operator(theirs.operator))
        );
        let values: Vec<&str> = ours.values.iter().map(|value| &**value).collect();
        assert_eq!(values, theirs.values);
    }
    assert_eq!(
        LabelSelector::parse(&ours.to_string()),
        Ok(ours),
        "its own text"
    );
}

/// A field selector: the same terms or the same error, and its text parses to itself.
pub fn fields(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let theirs = judge::FieldSelector::parse(text).map_err(|error| error.0);
    let ours = match FieldSelector::parse(text) {
        Ok(selector) => selector,
        Err(SelectorError::TooLarge) => return,
        Err(SelectorError::Invalid(error)) => return assert_eq!(theirs.err(), Some(error)),
    };
    let theirs = theirs.expect("ours parsed");
    assert_eq!(ours.requirements().len(), theirs.requirements().len());
    for (ours, theirs) in ours.requirements().iter().zip(theirs.requirements()) {
        let negated = ours.operator == FieldOperator::NotEquals;
        assert_eq!(
            (&*ours.key, negated, &*ours.value),
            (&*theirs.key, theirs.negated, &*theirs.value)
        );
    }
    // Keys are not escaped, in Go neither.
    if !ours
        .requirements()
        .iter()
        .any(|term| term.key.contains(['\\', '!']))
    {
        let again = FieldSelector::parse(&ours.to_string()).expect("its own text");
        let mut terms = [ours.requirements().to_vec(), again.requirements().to_vec()];
        for terms in &mut terms {
            terms.sort_by(|a, b| (&a.key, &a.value).cmp(&(&b.key, &b.value)));
        }
        assert_eq!(terms[0], terms[1], "its own text");
    }
}
