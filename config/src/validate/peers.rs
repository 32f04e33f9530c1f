//! The rules for `heartbeats.peers`: where the other replicas are, and by what they are known.

use std::net::{IpAddr, SocketAddr};

use super::Check;
use crate::{FileContent, Peers, Replicas, file};

const LISTEN: &str = "heartbeats.peers.listen";
const SERVICE: &str = "heartbeats.peers.service";
const SERVERS: &str = "heartbeats.peers.servers";
const SERVER_NAME: &str = "heartbeats.peers.serverName";

impl Check<'_> {
    /// The outer `None` is a mistake. `taken` are the addresses of the other listeners.
    #[expect(
        clippy::option_option,
        reason = "absent and wrong are different answers"
    )]
    pub(super) fn peers(
        &mut self,
        file: file::Peers,
        taken: [Option<SocketAddr>; 2],
    ) -> Option<Option<Peers>> {
        if !self.tree.has("heartbeats.peers") {
            return Some(None);
        }
        let listen = self.peer_listener(&file.listen, taken);
        let replicas = self.replicas(file.service, file.servers, listen);
        let example = "as `peers.watershed.internal`; every replica's certificate carries it";
        let server_name = self.required(SERVER_NAME, file.server_name, example);
        let server_name = server_name.and_then(|name| self.dns_name(SERVER_NAME, name));
        let cert_file = self.required_file(
            "heartbeats.peers.certFile",
            file.cert_file,
            FileContent::Certificates,
        );
        let key_file = self.required_file(
            "heartbeats.peers.keyFile",
            file.key_file,
            FileContent::PrivateKey,
        );
        let ca_file = self.required_file(
            "heartbeats.peers.caFile",
            file.ca_file,
            FileContent::CertificateAuthorities,
        );
        Some(Some(Peers {
            listen: listen?,
            replicas: replicas?,
            server_name: server_name?,
            cert_file: cert_file?,
            key_file: key_file?,
            ca_file: ca_file?,
        }))
    }

    fn peer_listener(
        &mut self,
        listen: &str,
        taken: [Option<SocketAddr>; 2],
    ) -> Option<SocketAddr> {
        let listen = self.address(LISTEN, listen)?;
        if listen.port() == 0 {
            return self.refuse(LISTEN, "peers have to know the port; name one, as 6444");
        }
        if let Some(taken) = taken.into_iter().flatten().find(|it| overlap(*it, listen)) {
            let message =
                format!("{listen} is taken by the listener of {taken}; choose another port");
            return self.refuse(LISTEN, &message);
        }
        Some(listen)
    }

    fn replicas(
        &mut self,
        service: Option<String>,
        servers: Vec<String>,
        listen: Option<SocketAddr>,
    ) -> Option<Replicas> {
        match (service, servers.is_empty()) {
            (Some(name), true) => Some(Replicas::Service {
                name: self.dns_name(SERVICE, name)?,
                port: listen?.port(),
            }),
            (None, false) => self.servers_of_peers(servers).map(Replicas::Servers),
            (Some(_), false) => self.refuse(
                SERVICE,
                "`servers` say where the replicas are already; keep one of the two",
            ),
            (None, true) => self.refuse(
                "heartbeats.peers",
                "nothing says where the replicas are; add `service` with the name of a headless \
                 Service, or `servers`",
            ),
        }
    }

    fn servers_of_peers(&mut self, servers: Vec<String>) -> Option<Vec<String>> {
        let before = self.mistakes.len();
        for (index, server) in servers.iter().enumerate() {
            let key = format!("{SERVERS}[{index}]");
            if !is_host_and_port(server) {
                let message = format!("`{server}` is not `host:port`; write as `10.0.0.1:6444`");
                self.note(&key, message);
            } else if servers[..index].contains(server) {
                self.note(&key, format!("`{server}` is named twice; remove one"));
            }
        }
        (self.mistakes.len() == before).then_some(servers)
    }

    fn dns_name(&mut self, key: &str, name: String) -> Option<String> {
        if is_dns_name(&name) {
            return Some(name);
        }
        let message = format!("`{name}` is not a DNS name; write as `peers.watershed.internal`");
        self.refuse(key, &message)
    }
}

fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let anywhere = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() == other.port() && (one.ip() == other.ip() || anywhere)
}

fn is_host_and_port(server: &str) -> bool {
    if server.parse::<SocketAddr>().is_ok_and(|it| it.port() != 0) {
        return true;
    }
    let Some((host, port)) = server.rsplit_once(':') else {
        return false;
    };
    is_dns_name(host) && port.parse::<u16>().is_ok_and(|port| port != 0)
}

/// Letters, digits, `-` and `.`, and no IP address.
fn is_dns_name(name: &str) -> bool {
    let label = |label: &str| {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        (1..=63).contains(&label.len())
            && label.bytes().all(fits)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label) && name.parse::<IpAddr>().is_err()
}
