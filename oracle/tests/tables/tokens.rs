//! Continue tokens, read and minted.

use watershed::door;
use watershed_loadtest::apiserver::paging;

use super::{Answer, Differences, Text, rows};

#[test]
fn continue_tokens_are_those_of_go() {
    let mut differences = Differences::default();
    let mut forwarded = 0;
    for (input, go) in rows::<Answer<(Text, String)>>(include_str!("../../tables/token.json")) {
        let input = input.lossy();
        let go = go
            .result()
            .map(|(key, version)| (key, version.parse::<i64>().unwrap()));
        match (door::token(&input), &go) {
            // Left to the apiserver, whatever it says.
            (None, Ok(_)) => forwarded += 1,
            (None, Err(_)) => {}
            (Some(got), Err(text)) => {
                differences.check(&input, "proxy", &format!("{got:?}"), text);
            }
            (Some((version, key)), Ok((wanted, number))) => {
                differences.check(&input, "proxy", &Some(key.as_str()), &wanted.utf8());
                differences.check(&input, "proxy", &version, &u64::try_from(*number).ok());
            }
        }
        let judge = paging::Continue::decode(&input).map(|token| {
            (
                token.start.trim_start_matches('/').to_owned(),
                token.revision,
            )
        });
        let go = go.map(|(key, number)| (key.lossy(), number));
        differences.check(&input, "embedded", &judge, &go);
    }
    // Names in another case, bytes that are no text, ends of lines and the like.
    assert!(forwarded < 30, "{forwarded} good tokens forwarded");
}

#[test]
fn minted_tokens_are_those_of_go() {
    let mut differences = Differences::default();
    for (input, go) in rows::<String>(include_str!("../../tables/mint.json")) {
        let (key, version): (String, i64) = serde_json::from_str(&input.lossy()).unwrap();
        if let (Ok(version), Some(last)) = (u64::try_from(version), key.strip_prefix('/')) {
            let last = last.strip_suffix('\0').unwrap();
            differences.check(&input, "proxy", &door::mint(version, last), &go);
        }
        let judge = paging::Continue {
            revision: version,
            start: key,
        };
        differences.check(&input, "embedded", &judge.encode(false), &go);
    }
}
