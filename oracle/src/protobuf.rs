//! The protobuf reader against a plain decoder.

use watershed_cache::encoding::door::{self, Value};

/// One field as Go's generated code reads it.
#[derive(Debug, PartialEq, Eq)]
struct Field {
    number: u64,
    start: usize,
    end: usize,
    value: Value,
}

/// What the reader reads the decoder reads too; what only the decoder reads has a number or a
/// varint that is too large.
pub fn protobuf(input: &[u8]) {
    let mut large = false;
    let theirs = decode(input, &mut large);
    match (door::protobuf(input), theirs) {
        (Ok(ours), theirs) => {
            let ours: Vec<Field> = ours
                .into_iter()
                .map(|(number, span, value)| Field {
                    number: number.into(),
                    start: span.start,
                    end: span.end,
                    value,
                })
                .collect();
            assert_eq!(Some(ours), theirs, "fields");
        }
        (Err(_), Some(_)) => assert!(large, "refused without a reason"),
        (Err(_), None) => {}
    }
}

/// Numbers and contents of all fields, varints as they stand.
pub(crate) fn fields(input: &[u8]) -> Option<Vec<(u64, Vec<u8>)>> {
    let content = |field: Field| {
        let content = match field.value {
            Value::Bytes(range) => input[range].to_vec(),
            Value::Varint(number) => number.to_be_bytes().to_vec(),
            Value::Fixed => input[field.start..field.end].to_vec(),
        };
        (field.number, content)
    };
    let fields = decode(input, &mut false)?;
    Some(fields.into_iter().map(content).collect())
}

fn decode(input: &[u8], large: &mut bool) -> Option<Vec<Field>> {
    let mut fields = Vec::new();
    let mut at = 0;
    while at < input.len() {
        let start = at;
        let key = varint(input, &mut at, large)?;
        let number = key >> 3;
        *large |= number >= 1 << 29;
        if number == 0 {
            return None;
        }
        let value = match key & 7 {
            0 => Value::Varint(varint(input, &mut at, large)?),
            1 => {
                at += 8;
                Value::Fixed
            }
            2 => {
                let length = usize::try_from(varint(input, &mut at, large)?).ok()?;
                let from = at;
                at = at.checked_add(length)?;
                Value::Bytes(from..at)
            }
            5 => {
                at += 4;
                Value::Fixed
            }
            _ => return None,
        };
        if at > input.len() {
            return None;
        }
        fields.push(Field {
            number,
            start,
            end: at,
            value,
        });
    }
    Some(fields)
}

/// Ten bytes at most; of the tenth only one bit fits.
fn varint(input: &[u8], at: &mut usize, large: &mut bool) -> Option<u64> {
    let mut number = 0_u128;
    for index in 0..10 {
        let byte = *input.get(*at)?;
        *at += 1;
        number |= u128::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            *large |= number > u128::from(u64::MAX);
            return Some(number as u64);
        }
    }
    None
}
