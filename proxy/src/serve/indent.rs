//! Indented JSON, made from compact JSON while it is sent.
//!
//! Owns what Go's `json.Indent` does with two spaces: breaks and spaces around punctuation, empty
//! objects and arrays as `{}` and `[]`, strings untouched, no final newline. It takes pieces cut
//! anywhere. It refuses to check: the input is JSON an apiserver wrote.

use bytes::{BufMut, BytesMut};

/// Where in the text it stands.
#[derive(Clone, Debug, Default)]
pub(crate) struct Indent {
    depth: usize,
    /// An object or array was opened, and nothing of it seen yet.
    opened: bool,
    in_string: bool,
    /// The byte before was a backslash.
    escaped: bool,
}

impl Indent {
    /// Appends the indented form of the next piece.
    pub(crate) fn push(&mut self, piece: &[u8], out: &mut BytesMut) {
        let mut rest = piece;
        while let Some(&byte) = rest.first() {
            if self.in_string {
                let length = self.string(rest);
                out.extend_from_slice(&rest[..length]);
                rest = &rest[length..];
            } else {
                self.token(byte, out);
                rest = &rest[1..];
            }
        }
    }

    /// Length of what is left of a string in `rest`.
    fn string(&mut self, rest: &[u8]) -> usize {
        for (index, &byte) in rest.iter().enumerate() {
            if std::mem::take(&mut self.escaped) {
                continue;
            }
            match byte {
                b'\\' => self.escaped = true,
                b'"' => {
                    self.in_string = false;
                    return index + 1;
                }
                _ => {}
            }
        }
        rest.len()
    }

    fn token(&mut self, byte: u8, out: &mut BytesMut) {
        if matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
            return;
        }
        let closes = matches!(byte, b'}' | b']');
        let was_opened = std::mem::take(&mut self.opened);
        if was_opened && !closes {
            self.depth += 1;
            self.newline(out);
        }
        if closes && !was_opened {
            self.depth = self.depth.saturating_sub(1);
            self.newline(out);
        }
        out.put_u8(byte);
        match byte {
            b'{' | b'[' => self.opened = true,
            b'"' => self.in_string = true,
            b',' => self.newline(out),
            b':' => out.put_u8(b' '),
            _ => {}
        }
    }

    fn newline(&self, out: &mut BytesMut) {
        out.put_u8(b'\n');
        out.put_bytes(b' ', 2 * self.depth);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn indented<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> String {
        let mut indent = Indent::default();
        let mut out = BytesMut::new();
        for piece in pieces {
            indent.push(piece, &mut out);
        }
        String::from_utf8(out.to_vec()).unwrap()
    }

    const COMPACT: &str =
        r#"{"a":{},"b":[],"c":[{},[],1,-2.5e3,null,true,"x"],"d":{"e":"{\"[,:]\\"},"":""}"#;

    const INDENTED: &str = r#"{
  "a": {},
  "b": [],
  "c": [
    {},
    [],
    1,
    -2.5e3,
    null,
    true,
    "x"
  ],
  "d": {
    "e": "{\"[,:]\\"
  },
  "": ""
}"#;

    #[test]
    fn it_is_what_go_writes_and_has_no_final_newline() {
        let line = format!("{COMPACT}\n");
        assert_eq!(indented([line.as_bytes()]), INDENTED);
        assert_eq!(indented([&b"{}\n"[..]]), "{}");
        assert_eq!(indented([&b"[ ]"[..]]), "[]");
    }

    #[test]
    fn pieces_may_be_cut_anywhere() {
        for size in 1..9 {
            assert_eq!(
                indented(COMPACT.as_bytes().chunks(size)),
                INDENTED,
                "{size}"
            );
        }
    }

    #[test]
    fn it_agrees_with_another_writer() {
        let text = serde_json::json!({
            "list": [{"x": [[], {}, [1, [2]]]}, "\u{1}\"\\/\u{2028}é"],
            "deep": {"a": {"b": {"c": {}}}},
        });
        let expected = serde_json::to_string_pretty(&text).unwrap();
        assert_eq!(indented([text.to_string().as_bytes()]), expected);
    }
}
