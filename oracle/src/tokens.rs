//! Continue tokens: what is minted is read back, by both; what the proxy reads the embedded
//! apiserver reads alike.

use watershed::door;
use watershed_loadtest::apiserver::paging::Continue;

/// Eight bytes of a resource version and a key, or a token as it is.
pub fn token(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    if let Some((version, start)) = door::token(&text) {
        let token = Continue::decode(&text).expect("the proxy reads nothing the apiserver refuses");
        assert_eq!(token.start, start, "start");
        let theirs = u64::try_from(token.revision).ok();
        assert_eq!(theirs, version, "resource version");
    }
    let Some((version, key)) = input.split_first_chunk() else {
        return;
    };
    let version = u64::from_be_bytes(*version) >> 1;
    let is_plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
    let Ok(key) = std::str::from_utf8(key) else {
        return;
    };
    if version == 0 || key.contains(['\u{2028}', '\u{2029}']) || !key.split('/').all(is_plain) {
        return;
    }
    let minted = door::mint(version, key);
    let start = format!("{key}\0");
    assert_eq!(
        door::token(&minted),
        Some((Some(version), start.clone())),
        "read back"
    );
    let theirs = Continue {
        revision: version.cast_signed(),
        start,
    };
    assert_eq!(
        Continue::decode(&minted),
        Ok(theirs.clone()),
        "read by the other"
    );
    assert_eq!(theirs.encode(true), minted, "minted by the other");
}
