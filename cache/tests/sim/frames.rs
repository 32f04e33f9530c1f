//! What a frame is, told from its bytes alone, and how it is compared with the one that must come.

use watershed_cache::encoding::Encoding;

use crate::thing::{Form, Shape};

pub(crate) fn assert_same(frame: &[u8], expected: &[u8], what: &str) {
    assert!(
        frame == expected,
        "{what}: {}\n expected {}",
        String::from_utf8_lossy(frame),
        String::from_utf8_lossy(expected)
    );
}

/// A bookmark has the shape the apiserver gave one, or the least one before there was any.
pub(crate) fn assert_bookmark(
    frame: &[u8],
    (version, end): (u64, bool),
    (may_know_shape, form): (bool, Form),
) {
    let bare = form.bookmark(version, end, Shape::Bare);
    if frame == bare {
        return;
    }
    assert!(may_know_shape, "it cannot know this shape");
    assert_same(
        frame,
        &form.bookmark(version, end, Shape::Zeroes),
        "a bookmark",
    );
}

pub(crate) fn frame_length(form: Form, bytes: &[u8]) -> usize {
    match form.encoding() {
        Encoding::Json => {
            let end = bytes.iter().position(|&byte| byte == b'\n');
            end.expect("frames are whole") + 1
        }
        Encoding::Protobuf => {
            let length = bytes.first_chunk().expect("frames are whole");
            4 + u32::from_be_bytes(*length) as usize
        }
    }
}

pub(crate) fn frame_type(form: Form, frame: &[u8]) -> &str {
    let word = match form.encoding() {
        Encoding::Json => frame.split(|&byte| byte == b'"').nth(3).expect("a type"),
        Encoding::Protobuf => &frame[6..6 + usize::from(frame[5])],
    };
    std::str::from_utf8(word).expect("a word")
}
