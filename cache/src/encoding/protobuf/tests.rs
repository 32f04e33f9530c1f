use proptest::prelude::*;

use super::{Reader, Value, push_bytes, push_varint, varint_len};

fn read(message: &[u8]) -> Result<usize, crate::encoding::DecodeError> {
    let mut reader = Reader::new(message, 0..message.len());
    let mut fields = 0;
    while reader.field()?.is_some() {
        fields += 1;
    }
    Ok(fields)
}

proptest! {
    #[test]
    fn varints_come_back(number: u64) {
        let mut message = vec![1 << 3];
        push_varint(&mut message, number);
        prop_assert_eq!(message.len(), 1 + varint_len(number));
        let mut reader = Reader::new(&message, 0..message.len());
        let field = reader.field().unwrap().unwrap();
        prop_assert!(matches!(field.value, Value::Varint(read) if read == number));
        prop_assert!(reader.field().unwrap().is_none());
    }

    #[test]
    fn fields_cover_the_message(bytes: Vec<u8>) {
        let mut reader = Reader::new(&bytes, 0..bytes.len());
        let mut end = 0;
        while let Ok(Some(field)) = reader.field() {
            prop_assert_eq!(field.span.start, end);
            end = field.span.end;
            if let Value::Bytes(value) = field.value {
                prop_assert_eq!(value.end, end);
            }
        }
        prop_assert!(end <= bytes.len());
    }

    #[test]
    fn every_cut_within_a_field_is_an_error(payload: Vec<u8>) {
        let mut message = Vec::new();
        push_bytes(&mut message, 3, &payload);
        prop_assert_eq!(read(&message), Ok(1));
        for end in 1..message.len() {
            prop_assert!(read(&message[..end]).is_err());
        }
    }
}

#[test]
fn malformed_fields_are_refused() {
    let table: [(&str, &[u8]); 8] = [
        ("field number 0", &[0x02, 0]),
        ("start of a group", &[0x0b, 0x0c]),
        ("end of a group", &[0x0c]),
        ("wire type 6", &[0x0e]),
        ("wire type 7", &[0x0f]),
        ("length beyond the end", &[0x0a, 2, 0]),
        (
            "length of 2^64-1",
            &[
                0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01,
            ],
        ),
        (
            "varint beyond 64 bits",
            &[
                0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02,
            ],
        ),
    ];
    for (what, message) in table {
        assert!(read(message).is_err(), "{what}");
    }
}

#[test]
fn fields_nobody_asked_for_are_skipped() {
    let mut message = vec![
        0x09, 1, 2, 3, 4, 5, 6, 7, 8, 0x15, 1, 2, 3, 4, 0x18, 0x96, 0x01,
    ];
    push_bytes(&mut message, 4, b"text");
    // Field 2^29-1, the highest there is.
    message.extend_from_slice(&[0xf8, 0xff, 0xff, 0xff, 0x0f, 0]);
    assert_eq!(read(&message), Ok(5));
}
