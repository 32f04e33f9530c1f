//! A watch frame to an object: cut, checked, lifted, copied.

use std::hint::black_box;

use bytes::Bytes;
use watershed_cache::encoding::{Encoding, EventType, FrameSplitter, decode_event, event_frame};

use crate::case::{Case, Steps};
use crate::subject;

/// Frames in the chunk the splitter is fed with.
const FRAMES: usize = 16;

pub(crate) fn cases() -> Vec<Case> {
    let json = |name: usize| subject::pod(name, 1_000_000);
    let protobuf = |name: usize| {
        let full = subject::pod_protobuf(name, 1_000_000);
        subject::decode(Encoding::Protobuf, &full)
    };
    vec![
        case("scan/json event", Encoding::Json, move |name| {
            event_frame(EventType::Modified, &json(name))
        }),
        case("scan/protobuf event", Encoding::Protobuf, move |name| {
            event_frame(EventType::Modified, &protobuf(name))
        }),
    ]
}

fn case(name: &str, encoding: Encoding, frame: impl Fn(usize) -> Bytes + 'static) -> Case {
    let prepare = move || {
        let chunk: Vec<u8> = (0..FRAMES).flat_map(|name| frame(name).to_vec()).collect();
        let chunk = Bytes::from(chunk);
        let mut splitter = FrameSplitter::new(encoding, 1 << 20);
        Steps::plain(move || {
            splitter.push(chunk.clone());
            while let Some(line) = splitter.line() {
                let event = decode_event(encoding, &subject::PODS, line).expect("an event");
                black_box(event);
                let length = line.len();
                splitter.skip(length);
            }
            while let Some(frame) = splitter.next_frame().expect("whole frames") {
                black_box(decode_event(encoding, &subject::PODS, &frame).expect("an event"));
            }
        })
    };
    Case::new(name, prepare).of(FRAMES as u64)
}
