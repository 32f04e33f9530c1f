//! Label and field selectors: their terms, or the text of the 400.

use serde::Deserialize;
use watershed_cache::selector::{
    FieldOperator, FieldSelector, LabelOperator, LabelSelector, SelectorError,
};
use watershed_loadtest::apiserver::selectors;

use super::{Answer, Differences, rows};

type Terms = Vec<(String, String, Vec<String>)>;

#[derive(Deserialize)]
struct GoSelector<T> {
    terms: T,
}

#[test]
fn label_selectors_are_those_of_go() {
    let mut differences = Differences::default();
    for (input, go) in rows::<Answer<GoSelector<Terms>>>(include_str!("../../tables/labels.json")) {
        let input = input.lossy();
        let go = go.result().map(|selector| {
            selector
                .terms
                .into_iter()
                .map(|(key, operator, values)| {
                    let operator = match operator.as_str() {
                        "=" | "==" => "in",
                        "!=" => "notin",
                        other => other,
                    };
                    (key, operator.to_owned(), values)
                })
                .collect::<Terms>()
        });
        let got = match LabelSelector::parse(&input) {
            Ok(selector) => Ok(selector
                .requirements()
                .iter()
                .map(|term| {
                    let operator = match term.operator {
                        LabelOperator::In => "in",
                        LabelOperator::NotIn => "notin",
                        LabelOperator::Exists => "exists",
                        LabelOperator::DoesNotExist => "!",
                        LabelOperator::GreaterThan => "gt",
                        LabelOperator::LessThan => "lt",
                    };
                    let values = term.values.iter().map(|value| value.to_string()).collect();
                    (term.key.to_string(), operator.to_owned(), values)
                })
                .collect()),
            Err(SelectorError::Invalid(text)) => Err(text),
            Err(SelectorError::TooLarge) => panic!("no selector of the table is too large"),
        };
        differences.check(&input, "cache", &got, &go);
        let judge = selectors::LabelSelector::parse(&input)
            .map(|selector| {
                selector
                    .requirements()
                    .iter()
                    .map(|term| {
                        let operator = match term.operator {
                            selectors::LabelOperator::In => "in",
                            selectors::LabelOperator::NotIn => "notin",
                            selectors::LabelOperator::Exists => "exists",
                            selectors::LabelOperator::DoesNotExist => "!",
                            selectors::LabelOperator::GreaterThan => "gt",
                            selectors::LabelOperator::LessThan => "lt",
                        };
                        (term.key.clone(), operator.to_owned(), term.values.clone())
                    })
                    .collect()
            })
            .map_err(|error| error.0);
        differences.check(&input, "embedded", &judge, &go);
    }
}

#[test]
fn field_selectors_are_those_of_go() {
    #[derive(Deserialize)]
    struct Go {
        terms: Vec<(String, String, String)>,
        name: Option<String>,
        text: String,
    }
    let mut differences = Differences::default();
    for (input, go) in rows::<Answer<Go>>(include_str!("../../tables/fields.json")) {
        let input = input.lossy();
        let go = go.result().map(|go| (go.terms, go.name, go.text));
        let got = match FieldSelector::parse(&input) {
            Ok(selector) => {
                let terms = selector.requirements().iter().map(|term| {
                    let operator = match term.operator {
                        FieldOperator::Equals => "=",
                        FieldOperator::NotEquals => "!=",
                    };
                    (
                        term.key.to_string(),
                        operator.to_owned(),
                        term.value.to_string(),
                    )
                });
                let name = selector.required_value("metadata.name").map(str::to_owned);
                Ok((terms.collect(), name, selector.to_string()))
            }
            Err(SelectorError::Invalid(text)) => Err(text),
            Err(SelectorError::TooLarge) => panic!("no selector of the table is too large"),
        };
        differences.check(&input, "cache", &got, &go);
        let judge = selectors::FieldSelector::parse(&input)
            .map(|selector| {
                let terms: Vec<_> = selector
                    .requirements()
                    .iter()
                    .map(|term| {
                        let operator = if term.negated { "!=" } else { "=" };
                        (term.key.clone(), operator.to_owned(), term.value.clone())
                    })
                    .collect();
                (terms, selector.required("metadata.name").map(str::to_owned))
            })
            .map_err(|error| error.0);
        let go = go.map(|(terms, name, _)| (terms, name));
        differences.check(&input, "embedded", &judge, &go);
    }
}
