//! The few pieces of JSON and protobuf that a Status is made of, and indentation as Go does it.

/// A JSON string escaped as Go's `encoding/json` does it, quotes included.
pub fn go_string(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                write!(out, "\\u{:04x}", u32::from(c)).expect("writing to a String never fails");
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Re-indents compact JSON with two blanks, as Go's `json.Indent` does.
pub fn indent(compact: &str) -> String {
    let mut out = String::with_capacity(compact.len() * 2);
    let mut depth = 0_usize;
    let (mut in_string, mut escaped) = (false, false);
    let mut previous = '\0';
    for c in compact.chars() {
        if in_string {
            out.push(c);
            if escaped {
                escaped = false;
            } else if c == '\\' {
                escaped = true;
            } else if c == '"' {
                in_string = false;
            }
            previous = c;
            continue;
        }
        if matches!(previous, '{' | '[') && !matches!(c, '}' | ']') {
            depth += 1;
            new_line(&mut out, depth);
        }
        match c {
            ',' => {
                out.push(c);
                new_line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            '}' | ']' => {
                if !matches!(previous, '{' | '[') {
                    depth -= 1;
                    new_line(&mut out, depth);
                }
                out.push(c);
            }
            '"' => {
                in_string = true;
                out.push(c);
            }
            c => out.push(c),
        }
        previous = c;
    }
    out
}

fn new_line(out: &mut String, depth: usize) {
    out.push('\n');
    for _ in 0..depth {
        out.push_str("  ");
    }
}

/// The few protobuf primitives that envelopes need.
pub mod proto {
    /// A base-128 number.
    pub fn raw_varint(out: &mut Vec<u8>, mut value: u64) {
        while value >= 0x80 {
            out.push((value as u8 & 0x7f) | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
    }

    /// Field `number` as a varint.
    pub fn varint(out: &mut Vec<u8>, number: u32, value: u64) {
        raw_varint(out, u64::from(number << 3));
        raw_varint(out, value);
    }

    /// Field `number` as length-delimited bytes.
    pub fn bytes(out: &mut Vec<u8>, number: u32, value: &[u8]) {
        raw_varint(out, u64::from(number << 3 | 2));
        raw_varint(out, value.len() as u64);
        out.extend_from_slice(value);
    }

    /// `k8s\0` and `runtime.Unknown` around a message.
    pub fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let mut meta = Vec::new();
        bytes(&mut meta, 1, api_version.as_bytes());
        bytes(&mut meta, 2, kind.as_bytes());
        let mut out = b"k8s\0".to_vec();
        bytes(&mut out, 1, &meta);
        bytes(&mut out, 2, raw);
        out.extend_from_slice(&[0x1a, 0, 0x22, 0]);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indenting_keeps_empty_objects_on_one_line() {
        let text = indent(r#"{"a":{},"b":[1,{"c":"x:{"}],"d":[]}"#);
        assert_eq!(
            text,
            "{\n  \"a\": {},\n  \"b\": [\n    1,\n    {\n      \"c\": \"x:{\"\n    }\n  ],\n  \"d\": []\n}"
        );
    }
}
