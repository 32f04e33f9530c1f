use std::collections::BTreeMap;

use super::*;

const STREAM: Kind = Kind::Stream;
const REQUEST: Kind = Kind::Request;

fn limits(agent: u32, user: u32) -> Limits {
    Limits {
        watches_per_agent: agent,
        requests_per_agent: agent,
        watches_per_user: user,
        requests_per_user: user,
        connections: 0,
        watches_per_connection: 0,
        initial_list_bytes: 0,
        authorization_bytes: 0,
        compressed_lists: 0,
        handshake_timeout: Duration::ZERO,
        header_timeout: Duration::ZERO,
        header_bytes: 0,
        keep_alive_interval: Duration::ZERO,
        keep_alive_timeout: Duration::ZERO,
        consistent_read_timeout: Duration::ZERO,
        connect_timeout: Duration::ZERO,
        request_timeout: Duration::ZERO,
    }
}

fn user(name: &str) -> UserInfo {
    UserInfo {
        name: name.to_owned(),
        groups: vec!["system:authenticated".to_owned()],
        ..UserInfo::default()
    }
}

fn node(name: &str) -> UserInfo {
    UserInfo {
        groups: vec!["system:nodes".to_owned()],
        ..user(&format!("system:node:{name}"))
    }
}

/// A service account's token that was given to a pod.
fn of_pod(name: &str, pod: &str) -> UserInfo {
    UserInfo {
        extra: BTreeMap::from([(POD_UID.to_owned(), vec![pod.to_owned()])]),
        ..user(name)
    }
}

fn enter(callers: &Callers, user: &UserInfo, kind: Kind, limits: &Limits) -> Result<Place, Full> {
    let entered = callers.enter((user, &OnceLock::new()), kind, limits);
    entered.map(|place| place.expect("it has limits"))
}

fn refused(entered: Result<Place, Full>) -> &'static str {
    entered.map(drop).expect_err("the limit is reached").limit
}

#[test]
fn who_is_at_its_limit_is_refused_and_nobody_else_is() {
    let (callers, limits) = (Callers::new(), limits(2, 3));
    for (caller, most, of_watches, of_requests) in [
        (node("a"), 2, "watchesPerAgent", "requestsPerAgent"),
        (user("b"), 3, "watchesPerUser", "requestsPerUser"),
    ] {
        let places: Vec<_> = [STREAM, REQUEST]
            .into_iter()
            .flat_map(|kind| (0..most).map(move |_| kind))
            .map(|kind| enter(&callers, &caller, kind, &limits).expect("room"))
            .collect();
        assert_eq!(
            refused(enter(&callers, &caller, STREAM, &limits)),
            of_watches
        );
        assert_eq!(
            refused(enter(&callers, &caller, REQUEST, &limits)),
            of_requests
        );
        let other = enter(&callers, &node("c"), STREAM, &limits);
        assert!(other.is_ok(), "another pays for {}", caller.name);
        drop(places);
        assert!(
            enter(&callers, &caller, STREAM, &limits).is_ok(),
            "an end gives its place back"
        );
    }
}

#[test]
fn pods_of_one_account_count_by_themselves_and_together() {
    let (callers, limits) = (Callers::new(), limits(2, 3));
    let account = "system:serviceaccount:kube-system:agent";
    let (one, two) = (of_pod(account, "1"), of_pod(account, "2"));
    let _first = enter(&callers, &one, STREAM, &limits).expect("room");
    let second = enter(&callers, &one, STREAM, &limits).expect("room");
    assert_eq!(
        refused(enter(&callers, &one, STREAM, &limits)),
        "watchesPerAgent"
    );
    let _third = enter(&callers, &two, STREAM, &limits).expect("room");
    // Refused by the name's limit, it has taken none of its own.
    for _ in 0..5 {
        assert_eq!(
            refused(enter(&callers, &two, STREAM, &limits)),
            "watchesPerUser"
        );
    }
    // A token of no pod is the name's.
    assert_eq!(
        refused(enter(&callers, &user(account), STREAM, &limits)),
        "watchesPerUser"
    );
    drop(second);
    assert!(enter(&callers, &two, STREAM, &limits).is_ok());
}

#[test]
fn a_new_limit_holds_for_who_comes_next() {
    let callers = Callers::new();
    let caller = node("a");
    let places: Vec<_> = (0..4)
        .map(|_| enter(&callers, &caller, STREAM, &limits(0, 0)).expect("0 is no limit"))
        .collect();
    assert!(enter(&callers, &caller, STREAM, &limits(4, 1)).is_err());
    assert!(enter(&callers, &caller, STREAM, &limits(5, 1)).is_ok());
    assert_eq!(places.len(), 4);
}

#[test]
fn administrators_have_no_limit() {
    let (callers, limits) = (Callers::new(), limits(1, 1));
    let known = OnceLock::new();
    let _one = callers.enter((&user("admin"), &known), STREAM, &limits);
    let admin = UserInfo {
        groups: vec!["system:masters".to_owned()],
        ..user("admin")
    };
    for _ in 0..3 {
        let entered = callers.enter((&admin, &known), STREAM, &limits);
        assert!(entered.is_ok_and(|place| place.is_none()));
    }
}

#[test]
fn who_has_nothing_under_way_is_forgotten() {
    let (callers, limits) = (Callers::new(), limits(9, 9));
    let caller = of_pod("system:serviceaccount:a:b", "1");
    let first = enter(&callers, &caller, STREAM, &limits).expect("room");
    let second = enter(&callers, &caller, REQUEST, &limits).expect("room");
    assert_eq!(callers.len(), 2, "the pod and the name");
    drop(first);
    assert_eq!(callers.len(), 2);
    drop(second);
    assert_eq!(callers.len(), 0);
}

#[test]
fn callers_that_share_a_connection_are_told_apart() {
    let (callers, limits) = (Callers::new(), limits(1, 1));
    let known = OnceLock::new();
    let places = ["a", "b", "c"].map(|name| {
        let entered = callers.enter((&user(name), &known), STREAM, &limits);
        entered.expect("each has a place of its own")
    });
    for name in ["a", "b", "c"] {
        let again = callers.enter((&user(name), &known), STREAM, &limits);
        assert_eq!(again.map(drop).expect_err(name).limit, "watchesPerUser");
    }
    drop(places);
    assert_eq!(callers.len(), 1, "the connection keeps its first caller");
}

#[test]
fn threads_together_never_pass_the_limit() {
    const MOST: u32 = 5;
    let (callers, limits) = (Callers::new(), limits(MOST, MOST));
    let inside = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (callers, limits, inside) = (&callers, &limits, &inside);
            scope.spawn(move || {
                let caller = of_pod("shared", if thread % 2 == 0 { "1" } else { "2" });
                for _ in 0..20_000 {
                    let places = [(); 3].map(|()| enter(callers, &caller, STREAM, limits).ok());
                    let taken = places.iter().flatten().count() as u32;
                    let together = inside.fetch_add(taken, Ordering::SeqCst) + taken;
                    assert!(together <= MOST, "{together} are inside");
                    inside.fetch_sub(taken, Ordering::SeqCst);
                }
            });
        }
    });
    assert_eq!(callers.len(), 0);
}

#[test]
fn a_refusal_is_a_status_with_a_spread_retry_after() {
    let full = Full {
        limit: "watchesPerUser",
        kind: STREAM,
    };
    let waits: std::collections::BTreeSet<_> = (0..1000)
        .map(|_| full.status().retry_after_seconds().expect("one"))
        .collect();
    assert_eq!(waits, (1..=8).collect());
    assert_eq!(full.status().code(), 429);
}
