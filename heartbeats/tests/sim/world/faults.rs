//! What goes wrong.

use super::{KUBELETS, REPLICAS, Replica, World};

/// How long a replica may be silent until its peers take it for dead, milliseconds.
const UNNOTICED: u64 = 3_000;

impl World {
    pub(super) fn fault(&mut self) {
        let (replica, kubelet) = (self.rng.usize(0..REPLICAS), self.rng.usize(0..KUBELETS));
        let name = self.kubelets[kubelet].name.clone();
        let fault = self.rng.u8(0..18);
        self.note(format!("fault {fault} r{replica} {name}"));
        match fault {
            0 => self.crash(replica),
            1 | 2 => self.revive(replica),
            3 => self.replicas[replica].cut ^= true,
            4 => self.replicas[replica].stalled ^= true,
            5 => self.failing = *self.rng.choice(&[0, 0, 0, 20, 60, 100]).expect("it fits"),
            6 => self.slow ^= true,
            7 => self.kubelets[kubelet].home = replica,
            8 => self.kubelets[kubelet].double ^= true,
            9 => self.kill(kubelet),
            10 => {
                self.kill(kubelet);
                self.kubelets[kubelet].restart(self.now);
            }
            11 => self.set_clock(kubelet),
            12 => self.store.delete_lease(&name),
            13 => self.replace_node(&name),
            14 => self.store.collect_garbage(),
            15 => self.held_up ^= true,
            16 => self.recreate(),
            _ => self.store.edit(&name),
        }
    }

    /// What it has on the wire may still arrive. Others notice it by and by.
    pub(super) fn crash(&mut self, number: usize) {
        let silent = self.rng.u64(0..UNNOTICED);
        let replica = &mut self.replicas[number];
        if std::mem::replace(&mut replica.up, false) {
            replica.unnoticed_until = Some(self.now + silent);
            self.crashed_at = self.now;
        }
    }

    /// Lets replicas notice who has been silent for long enough.
    pub(super) fn notice(&mut self) {
        for number in 0..REPLICAS {
            let until = self.replicas[number].unnoticed_until;
            if until.is_some_and(|until| until <= self.now) {
                self.miss(number);
            }
        }
    }

    fn miss(&mut self, number: usize) {
        self.replicas[number].unnoticed_until = None;
        let (gone, moment) = (self.replicas[number].peer(), self.moment());
        for other in self.replicas.iter_mut().filter(|other| other.up) {
            other.loses(moment, gone);
            self.laws.debts.notices(self.now, other.life, gone.0.into());
        }
        self.count_peers();
    }

    /// Tells replicas whether they are alone.
    pub(super) fn count_peers(&mut self) {
        let there = |replica: &&Replica| replica.seems_up();
        let up = self.replicas.iter().filter(there).count();
        for replica in self.replicas.iter_mut().filter(|replica| replica.up) {
            replica.set_peers(up > 1);
        }
    }

    pub(super) fn revive(&mut self, number: usize) {
        if !self.replicas[number].up {
            if self.replicas[number].unnoticed_until.is_some() {
                self.miss(number);
            }
            let life = self.life();
            self.replicas[number] = Replica::new(life, self.limits, &self.store, self.now);
            self.count_peers();
        }
    }

    pub(super) fn kill(&mut self, kubelet: usize) {
        self.kubelets[kubelet].alive = false;
        if let Some(request) = self.kubelets[kubelet].hang_up() {
            self.abandon(kubelet, request);
        }
    }

    fn set_clock(&mut self, kubelet: usize) {
        let step = self.rng.i64(-90_000_000..90_000_000);
        let kubelet = &mut self.kubelets[kubelet];
        kubelet.trusted = false;
        kubelet.offset = (kubelet.offset + step).max(0);
    }

    /// Deletes a Node, or deletes it and creates it anew, or creates it.
    fn replace_node(&mut self, name: &str) {
        if self.store.nodes.contains_key(name) {
            self.store.set_node(name, false);
        }
        if self.rng.bool() {
            self.store.set_node(name, true);
        }
    }

    /// Deletes a lease while a write of it is on the way, and creates one of the same name and
    /// owner, as its kubelet might.
    fn recreate(&mut self) {
        let Some(flight) = self.rng.choice(&self.flights) else {
            return;
        };
        let (name, renewed) = (flight.body.name.clone(), flight.body.renewed);
        if self.store.leases.contains_key(&name) {
            self.store.delete_lease(&name);
        }
        if let Some(lease) = self.store.create(&name, renewed) {
            self.tally.count("recreated under a write");
            self.laws.says(self.now, lease.uid, renewed);
        }
    }

    pub(super) fn heal(&mut self) {
        self.note("heal".to_owned());
        self.failing = 0;
        self.slow = false;
        self.held_up = false;
        for number in 0..REPLICAS {
            self.revive(number);
            self.replicas[number].cut = false;
            self.replicas[number].stalled = false;
        }
        for kubelet in 0..KUBELETS {
            let name = self.kubelets[kubelet].name.clone();
            if !self.store.nodes.contains_key(&name) {
                self.store.set_node(&name, true);
            }
        }
        self.store.collect_garbage();
        for kubelet in &mut self.kubelets {
            kubelet.double = false;
            if !kubelet.alive {
                kubelet.restart(self.now);
            }
        }
    }
}
