//! What goes wrong.

use super::{KUBELETS, REPLICAS, Replica, World};

impl World {
    pub(super) fn fault(&mut self) {
        let (replica, kubelet) = (self.rng.usize(0..REPLICAS), self.rng.usize(0..KUBELETS));
        let name = self.kubelets[kubelet].name.clone();
        let fault = self.rng.u8(0..16);
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
            9 => self.kubelets[kubelet].alive = false,
            10 => {
                let now = self.now;
                self.kubelets[kubelet].restart(now);
            }
            11 => self.set_clock(kubelet),
            12 => self.store.delete_lease(&name),
            13 => self.replace_node(&name),
            14 => self.store.collect_garbage(),
            _ => self.store.edit(&name),
        }
    }

    /// What it has on the wire may still arrive.
    fn crash(&mut self, number: usize) {
        self.replicas[number].up = false;
        let (gone, moment) = (self.replicas[number].peer(), self.moment());
        for other in self.replicas.iter_mut().filter(|other| other.up) {
            other.loses(moment, gone);
        }
        self.count_peers();
    }

    /// Tells replicas whether they are alone.
    pub(super) fn count_peers(&mut self) {
        let up = self.replicas.iter().filter(|replica| replica.up).count();
        for replica in self.replicas.iter_mut().filter(|replica| replica.up) {
            replica.has_peers(up > 1);
        }
    }

    fn revive(&mut self, number: usize) {
        if !self.replicas[number].up {
            let life = self.life();
            self.replicas[number] = Replica::new(life, self.limits, &self.store, self.now);
            self.count_peers();
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

    pub(super) fn heal(&mut self) {
        self.note("heal".to_owned());
        self.failing = 0;
        self.slow = false;
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
