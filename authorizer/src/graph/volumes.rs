//! Persistent volumes: which claim they are for, and which secrets mounting them takes.
//!
//! Owns the list of a claim's volumes, which is one long unless somebody made a mistake. Invariant:
//! a claim links the first of its volumes, each volume the next.

use super::names::{Kind, Link, Vertex};
use super::{Revoked, State};
use crate::facts::PersistentVolumeFacts;

/// A persistent volume with a claim.
#[derive(Debug)]
pub(super) struct Volume {
    vertex: Vertex,
    pub(super) claim: Vertex,
    /// Sorted, each once.
    secrets: Box<[Vertex]>,
    /// The number of the claim's next volume.
    next: Option<u32>,
}

impl Default for Volume {
    fn default() -> Self {
        Self {
            vertex: Vertex::NONE,
            claim: Vertex::NONE,
            secrets: Box::default(),
            next: None,
        }
    }
}

impl State {
    /// Whether mounting a claim takes a secret.
    pub(super) fn mounts(&self, claim: Vertex, secret: Vertex) -> bool {
        self.volumes_of(claim)
            .any(|volume| volume.secrets.binary_search(&secret).is_ok())
    }

    fn volumes_of(&self, claim: Vertex) -> impl Iterator<Item = &Volume> {
        let first = self.first_volume(claim);
        std::iter::successors(first.map(|number| &self.volumes[number]), |volume| {
            volume.next.map(|number| &self.volumes[number])
        })
    }

    fn first_volume(&self, claim: Vertex) -> Option<u32> {
        match self.names.link(claim) {
            Link::Volume(number) => Some(number),
            Link::None | Link::Node(_) | Link::Edges(_) | Link::Mounts(_) => None,
        }
    }

    pub(super) fn upsert_volume(&mut self, facts: &PersistentVolumeFacts<'_>) -> Revoked {
        let known = self.names.find(Kind::PersistentVolume, "", &facts.name);
        let known = known.and_then(|vertex| self.first_volume(vertex));
        let Some((namespace, name)) = &facts.claim else {
            return known.map_or(Revoked::Nothing, |number| self.remove_volume(number));
        };
        let used = known.is_some_and(|number| self.pods_use_claim_of(number));
        let kind = Kind::PersistentVolumeClaim;
        let claim = self.names.acquire(kind, namespace, name);
        let secrets = self.acquire_secrets(facts);
        let mut revoked = Revoked::Nothing;
        if let Some(number) = known {
            let volume = &self.volumes[number];
            let keeps = volume.claim == claim
                && volume
                    .secrets
                    .iter()
                    .all(|secret| secrets.binary_search(secret).is_ok());
            if used && !keeps {
                revoked = self.lose_all();
            }
            self.cut_volume(number);
        }
        self.add_volume(&facts.name, claim, secrets);
        revoked
    }

    /// Forgets a volume.
    pub(super) fn remove_volume(&mut self, number: u32) -> Revoked {
        let revoked = if self.pods_use_claim_of(number) {
            self.lose_all()
        } else {
            Revoked::Nothing
        };
        self.cut_volume(number);
        revoked
    }

    fn acquire_secrets(&mut self, facts: &PersistentVolumeFacts<'_>) -> Box<[Vertex]> {
        let mut secrets: Vec<Vertex> = facts
            .secrets
            .iter()
            .map(|(namespace, name)| self.names.acquire(Kind::Secret, namespace, name))
            .collect();
        secrets.sort_unstable();
        secrets.dedup_by(|second, first| {
            let same = second == first;
            if same {
                self.names.release(*second);
            }
            same
        });
        secrets.into_boxed_slice()
    }

    /// Adds a volume. Takes over what was counted for claim and secrets.
    fn add_volume(&mut self, name: &str, claim: Vertex, secrets: Box<[Vertex]>) {
        let vertex = self.names.acquire(Kind::PersistentVolume, "", name);
        self.list_bytes += size_of_val(&*secrets);
        for &secret in &secrets {
            self.count_mount(secret, 1);
        }
        let number = self.volumes.insert(Volume {
            vertex,
            claim,
            secrets,
            next: self.first_volume(claim),
        });
        self.names.set_link(vertex, Link::Volume(number));
        self.names.set_link(claim, Link::Volume(number));
    }

    fn cut_volume(&mut self, number: u32) {
        let Volume {
            vertex,
            claim,
            secrets,
            next,
        } = self.volumes.remove(number);
        self.unlink(claim, number, next);
        self.list_bytes -= size_of_val(&*secrets);
        for &secret in &secrets {
            self.count_mount(secret, -1);
            self.names.release(secret);
        }
        self.names.release(claim);
        self.names.release(vertex);
    }

    /// Counts a volume that mentions a secret, or one that no longer does.
    fn count_mount(&mut self, secret: Vertex, by: i32) {
        let before = match self.names.link(secret) {
            Link::Mounts(before) => before,
            Link::None | Link::Node(_) | Link::Edges(_) | Link::Volume(_) => 0,
        };
        let link = match before.saturating_add_signed(by) {
            0 => Link::None,
            mounts => Link::Mounts(mounts),
        };
        self.names.set_link(secret, link);
    }

    /// Takes a volume out of the list of its claim.
    fn unlink(&mut self, claim: Vertex, number: u32, next: Option<u32>) {
        let first = self.first_volume(claim);
        let mut at = first.expect("the claim of a volume links one");
        if at == number {
            let link = next.map_or(Link::None, Link::Volume);
            return self.names.set_link(claim, link);
        }
        loop {
            let volume = &mut self.volumes[at];
            let following = volume.next.expect("a volume is in the list of its claim");
            if following == number {
                volume.next = next;
                return;
            }
            at = following;
        }
    }

    /// Whether anything but volumes counts on the claim of a volume.
    fn pods_use_claim_of(&self, number: u32) -> bool {
        let claim = self.volumes[number].claim;
        self.names.uses(claim) as usize > self.volumes_of(claim).count()
    }
}
