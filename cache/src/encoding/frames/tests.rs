use bytes::Bytes;
use proptest::prelude::*;

use super::{FrameError, FrameSplitter, State};
use crate::encoding::Encoding;

const LIMIT: usize = 1 << 20;

/// All frames of a body that arrives in chunks of these sizes, used in turn.
fn split(encoding: Encoding, body: &[u8], sizes: &[usize]) -> Result<Vec<Bytes>, FrameError> {
    let mut splitter = FrameSplitter::new(encoding, LIMIT);
    let mut frames = Vec::new();
    let mut rest = body;
    for &size in sizes.iter().cycle() {
        let (chunk, later) = rest.split_at(size.min(rest.len()));
        splitter.push(Bytes::copy_from_slice(chunk));
        while let Some(frame) = splitter.next_frame()? {
            frames.push(frame);
        }
        rest = later;
        if rest.is_empty() {
            break;
        }
    }
    splitter.finish()?;
    Ok(frames)
}

proptest! {
    #[test]
    fn json_frames_do_not_depend_on_the_chunks(
        texts in proptest::collection::vec(any::<String>(), 0..5),
        space in "[ \n\r\t]{0,3}",
        sizes in proptest::collection::vec(1_usize..20, 1..5),
    ) {
        let objects: Vec<String> = texts
            .iter()
            .map(|text| serde_json::json!({"k}": [{"v": text}, "}]\\\""], "": {}}).to_string())
            .collect();
        let body: String = objects.iter().map(|object| format!("{space}{object}{space}")).collect();
        let frames = split(Encoding::Json, body.as_bytes(), &sizes).unwrap();
        prop_assert_eq!(frames, objects);
    }

    #[test]
    fn protobuf_frames_do_not_depend_on_the_chunks(
        messages in proptest::collection::vec(any::<Vec<u8>>(), 0..5),
        sizes in proptest::collection::vec(1_usize..20, 1..5),
    ) {
        let mut body = Vec::new();
        for message in &messages {
            body.extend_from_slice(&(message.len() as u32).to_be_bytes());
            body.extend_from_slice(message);
        }
        prop_assert_eq!(split(Encoding::Protobuf, &body, &sizes).unwrap(), messages);
    }
}

#[test]
fn a_stream_that_ends_within_a_frame_is_truncated() {
    let truncated = |have| Err(FrameError::Truncated { have });
    assert_eq!(split(Encoding::Json, b"{\"a\":\"}", &[3]), truncated(7));
    assert_eq!(split(Encoding::Json, b"{} {", &[1]), truncated(1));
    assert_eq!(
        split(Encoding::Protobuf, &[0, 0, 0, 2, 1], &[9]),
        truncated(5)
    );
    assert_eq!(split(Encoding::Protobuf, &[0, 0], &[9]), truncated(2));
    assert_eq!(split(Encoding::Json, b"{}\n  ", &[2]).unwrap(), ["{}"]);
}

#[test]
fn only_objects_are_frames() {
    for (body, found) in [("[]", b'['), ("{}1", b'1'), ("{},{}", b','), ("{}}", b'}')] {
        assert_eq!(
            split(Encoding::Json, body.as_bytes(), &[9]),
            Err(FrameError::NotAnObject { found })
        );
    }
}

#[test]
fn a_frame_above_the_limit_is_refused_before_it_has_arrived() {
    for (encoding, start) in [
        (Encoding::Json, &b"{\"a\":\"bbbb"[..]),
        (Encoding::Protobuf, &[0, 0, 0, 9][..]),
    ] {
        let mut splitter = FrameSplitter::new(encoding, 8);
        splitter.push(Bytes::copy_from_slice(start));
        assert_eq!(splitter.next_frame(), Err(FrameError::TooLong { limit: 8 }));
    }
    let mut splitter = FrameSplitter::new(Encoding::Json, 8);
    splitter.push(Bytes::from_static(b"{\"a\":12}{\"a\":123}"));
    assert_eq!(splitter.next_frame().unwrap().unwrap(), "{\"a\":12}");
    assert_eq!(splitter.next_frame(), Err(FrameError::TooLong { limit: 8 }));
}

#[test]
fn every_byte_of_a_long_frame_is_looked_at_once() {
    let mut splitter = FrameSplitter::new(Encoding::Json, 16 << 20);
    splitter.push(Bytes::from_static(b"{\"a\":\""));
    for chunk in 0..640 {
        let State::Json(state) = &splitter.state else {
            panic!("a JSON splitter")
        };
        assert_eq!(
            state.scanned,
            if chunk == 0 { 0 } else { 6 + chunk * 16384 }
        );
        splitter.push(Bytes::from(vec![b'x'; 16384]));
        assert_eq!(splitter.next_frame(), Ok(None));
    }
    splitter.push(Bytes::from_static(b"\"}"));
    assert_eq!(
        splitter.next_frame().unwrap().unwrap().len(),
        8 + 640 * 16384
    );
}

#[test]
fn a_line_is_found_wherever_chunks_end_and_whatever_came_before_it() {
    let pretty = "{\n\"a\":\n{}}"; // what looks like a line of it is none
    let body = ["{\"a\":1}", "{\"b\":\"}\"}", pretty, "{}", "{\"c\":[]}"].join("\n") + "\n";
    for cut in 1..=body.len() {
        let mut splitter = FrameSplitter::new(Encoding::Json, LIMIT);
        let (mut lines, mut frames) = (0, Vec::new());
        for chunk in body.as_bytes().chunks(cut) {
            splitter.push(Bytes::copy_from_slice(chunk));
            loop {
                let line = splitter.line().map(Bytes::copy_from_slice);
                if let Some(line) = line
                    .filter(|line| serde_json::from_slice::<serde::de::IgnoredAny>(line).is_ok())
                {
                    splitter.skip(line.len());
                    lines += 1;
                    frames.push(line);
                } else if let Some(frame) = splitter.next_frame().unwrap() {
                    frames.push(frame);
                } else {
                    break;
                }
            }
        }
        splitter.finish().unwrap();
        assert_eq!(
            frames.join(&b'\n'),
            body.trim_end().as_bytes(),
            "cut every {cut} bytes"
        );
        assert!(
            cut < 10 || lines >= 3,
            "{lines} lines of 4, cut every {cut} bytes"
        );
    }
}
