//! Tables: what `kubectl get` shows.
//!
//! Owns the columns of each kind and how a cell is computed, as `printers/internalversion` of 1.36
//! does for the kinds people look at; custom resources print what their CRD says, everything else
//! prints name and age. Refuses the envelope: which encoding, which objects in the rows.
//!
//! Invariant: a row has as many cells as the resource has columns.

mod age;
mod builtin;
mod nodes;
mod pods;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::resources::{Custom, Resource};
use super::schema::write_json_string;

pub(super) use age::age_of;

/// A column of a built-in kind.
struct Column {
    name: &'static str,
    kind: &'static str,
    priority: u8,
    description: &'static str,
    cell: fn(&Value, Timestamp) -> Value,
}

/// The `columnDefinitions` array of a resource, as JSON in wire order.
pub fn column_definitions(resource: &Resource) -> Vec<u8> {
    let mut out = b"[".to_vec();
    let mut define = |name: &str, kind: &str, format: &str, description: &str, priority: i64| {
        if out.len() > 1 {
            out.push(b',');
        }
        let members = [("name", name), ("type", kind), ("format", format)];
        out.push(b'{');
        for (member, value) in members.into_iter().chain([("description", description)]) {
            out.extend_from_slice(format!("\"{member}\":").as_bytes());
            write_json_string(&mut out, value);
            out.push(b',');
        }
        out.extend_from_slice(format!("\"priority\":{priority}}}").as_bytes());
    };
    define("Name", "string", "name", builtin::NAME, 0);
    match &resource.custom {
        Some(custom) => {
            for column in printer_columns(custom) {
                let text = |member: &str| column[member].as_str().unwrap_or_default();
                let fallback = format!(
                    "Custom resource definition column (in JSONPath format): {}",
                    text("jsonPath")
                );
                let described = text("description");
                let description = if described.is_empty() {
                    &fallback
                } else {
                    described
                };
                let priority = column["priority"].as_i64().unwrap_or(0);
                define(
                    text("name"),
                    text("type"),
                    text("format"),
                    description,
                    priority,
                );
            }
        }
        None => {
            for column in builtin::columns(resource) {
                let priority = i64::from(column.priority);
                define(column.name, column.kind, "", column.description, priority);
            }
        }
    }
    out.push(b']');
    out
}

/// The cells of one row; ages are reckoned at `now`. A bookmark's object gives the row of an empty
/// object, as upstream.
pub fn cells(resource: &Resource, object: &Value, now: Timestamp) -> Vec<Value> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let mut cells = vec![json!(name)];
    match &resource.custom {
        Some(custom) => cells.extend(
            printer_columns(custom)
                .iter()
                .map(|column| custom_cell(column, object, now)),
        ),
        None => {
            let columns = builtin::columns(resource).iter();
            cells.extend(columns.map(|column| (column.cell)(object, now)));
        }
    }
    cells
}

/// The columns of a custom resource after its name: its own, or the age.
fn printer_columns(custom: &Custom) -> Vec<Value> {
    let own = custom.version["additionalPrinterColumns"].as_array();
    match own.filter(|columns| !columns.is_empty()) {
        Some(columns) => columns.clone(),
        None => vec![json!({
            "name": "Age",
            "type": "date",
            "jsonPath": ".metadata.creationTimestamp",
            "description": builtin::AGE,
        })],
    }
}

fn custom_cell(column: &Value, object: &Value, now: Timestamp) -> Value {
    let path = column["jsonPath"].as_str().unwrap_or_default();
    let Some(found) = follow(object, path).filter(|value| !value.is_null()) else {
        return Value::Null;
    };
    match column["type"].as_str().unwrap_or_default() {
        "date" => json!(age_of(found, now)),
        "string" => match found {
            Value::String(text) => json!(text),
            other => json!(other.to_string()),
        },
        "integer" if !found.is_i64() && !found.is_u64() => Value::Null,
        _ => found.clone(),
    }
}

/// The value at a simple JSONPath: dots, indices, quoted members and `[?(@.a=="b")]`.
fn follow<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    let mut at = object;
    let mut rest = path.trim_start_matches('$');
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix("[?(@.") {
            let (condition, after) = after.split_once(")]")?;
            let (member, wanted) = condition.split_once("==")?;
            let wanted = wanted.trim().trim_matches(['"', '\'']);
            let member = member.trim();
            at = at.as_array()?.iter().find(|item| item[member] == wanted)?;
            rest = after;
        } else if let Some(after) = rest.strip_prefix('[') {
            let (inside, after) = after.split_once(']')?;
            at = match inside.parse::<usize>() {
                Ok(index) => at.get(index)?,
                Err(_) => at.get(inside.trim_matches(['"', '\'']))?,
            };
            rest = after;
        } else {
            let member = rest.strip_prefix('.').unwrap_or(rest);
            let end = member.find(['.', '[']).unwrap_or(member.len());
            at = at.get(&member[..end])?;
            rest = &member[end..];
        }
    }
    Some(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apiserver::resources::Registry;

    #[test]
    fn every_row_has_as_many_cells_as_columns() {
        let registry = Registry::builtin();
        for resource in registry.all() {
            let definitions: Value =
                serde_json::from_slice(&column_definitions(&resource)).unwrap();
            let row = cells(&resource, &json!({"metadata": {}}), Timestamp::UNIX_EPOCH);
            assert_eq!(
                definitions.as_array().unwrap().len(),
                row.len(),
                "{}",
                resource.kind
            );
        }
    }

    #[test]
    fn paths_reach_members_items_and_conditions() {
        let object = json!({"a": {"b c": [{"type": "X", "v": 1}, {"type": "Y", "v": 2}]}});
        assert_eq!(follow(&object, ".a['b c'][1].v"), Some(&json!(2)));
        assert_eq!(
            follow(&object, ".a['b c'][?(@.type==\"X\")].v"),
            Some(&json!(1))
        );
        assert_eq!(follow(&object, ".a.nope"), None);
    }
}
