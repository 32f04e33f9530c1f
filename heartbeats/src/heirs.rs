//! Which peers hear of a node's renewals.
//!
//! Owns the choice: by rendezvous hashing, the two peers of greatest weight for the name of the
//! node. Whoever leaves or comes takes only its own nodes with it, and no table is kept. The one who
//! owes chooses and says with each debt whether the peer is its first heir or its second, so peers
//! never have to agree on who is there.

/// Which of a node's heirs a peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Heir {
    /// Pays at once.
    First,
    /// Pays what is not in the store a few seconds later.
    Second,
}

impl Heir {
    /// In the order in which they pay.
    pub const ALL: [Self; 2] = [Self::First, Self::Second];
}

/// The peers that are there now.
#[derive(Clone, Debug, Default)]
pub struct Heirs {
    /// One for each, in the order they were given.
    seeds: Vec<u64>,
}

impl Heirs {
    /// Of peers by their names, which differ.
    pub fn new<'p>(peers: impl IntoIterator<Item = &'p str>) -> Self {
        let seeds = peers.into_iter().map(hash).collect();
        Self { seeds }
    }

    /// The places of a node's first and second heir among the peers.
    pub fn of(&self, node: &str) -> [Option<usize>; 2] {
        let node = hash(node);
        let weights = self.seeds.iter().map(|seed| (mixed(node ^ seed), *seed));
        let mut greatest = [None; 2];
        for (place, weight) in weights.enumerate() {
            let entry = Some((weight, place));
            if entry > greatest[0] {
                greatest = [entry, greatest[0]];
            } else if entry > greatest[1] {
                greatest[1] = entry;
            }
        }
        greatest.map(|entry| entry.map(|(_weight, place)| place))
    }
}

/// FNV-1a, then mixed: its upper bits alone are weak.
fn hash(name: &str) -> u64 {
    let bytes = name.bytes();
    mixed(bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    }))
}

fn mixed(mut hash: u64) -> u64 {
    for multiplier in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
        hash = (hash ^ hash >> 33).wrapping_mul(multiplier);
    }
    hash ^ hash >> 33
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names<'p>(node: &str, peers: &[&'p str]) -> [Option<&'p str>; 2] {
        let heirs = Heirs::new(peers.iter().copied()).of(node);
        heirs.map(|place| place.map(|place| peers[place]))
    }

    #[test]
    fn heirs_do_not_depend_on_the_order_of_peers_and_are_evenly_spread() {
        let peers = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"];
        let turned = ["10.0.0.3", "10.0.0.1", "10.0.0.4", "10.0.0.2"];
        let mut counts = [[0; 4]; 2];
        for node in 0..4_000 {
            let node = format!("node-{node}");
            let chosen = names(&node, &peers);
            assert_eq!(chosen, names(&node, &turned));
            assert_ne!(chosen[0], chosen[1]);
            for (rank, heir) in chosen.iter().enumerate() {
                let place = peers.iter().position(|peer| Some(*peer) == *heir);
                counts[rank][place.unwrap()] += 1;
            }
            // Whoever leaves takes only its own place with it.
            let left = names(&node, &[peers[0], peers[2], peers[3]]);
            let stayed = chosen.iter().filter(|heir| **heir != Some(peers[1]));
            assert!(stayed.clone().eq(left.iter().take(stayed.clone().count())));
        }
        for nodes in counts.as_flattened() {
            assert!((900..1_100).contains(nodes), "{counts:?}");
        }
    }

    #[test]
    fn where_there_are_few_peers_there_are_few_heirs() {
        assert_eq!(names("n1", &[]), [None, None]);
        assert_eq!(names("n1", &["a"]), [Some("a"), None]);
    }
}
