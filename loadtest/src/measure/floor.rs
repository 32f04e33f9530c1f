//! The floor: what one `send` of 1 KB costs on this machine, now.
//!
//! Owns the one number that makes figures of different machines comparable: the CPU that the kernel
//! takes to move an event to a socket whose reader sleeps. Refuses TLS and HTTP; what a server adds
//! to the floor is what is measured elsewhere.
//! Invariant: readers are asleep when their bytes arrive, as those of a broadcast are.

use std::io::Write as _;
use std::net::{Ipv4Addr, TcpStream as Sender};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::task::{JoinSet, spawn_blocking};

/// Connections the sends go round.
const CONNECTIONS: usize = 200;
/// Sends to each of them.
const ROUNDS: usize = 100;
/// Payload of one send: the event of 1 KB that scenarios write.
const PAYLOAD: usize = 1024;

/// CPU of the sending thread per send of 1 KB over loopback, kernel included. Takes well under a
/// second.
///
/// # Errors
/// When sockets cannot be opened or the system does not tell a thread's CPU.
pub async fn send_floor() -> Result<Duration> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let mut readers = JoinSet::new();
    let mut senders = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        let (sender, accepted) = tokio::join!(
            spawn_blocking(move || Sender::connect(address)),
            listener.accept()
        );
        let (mut reader, _) = accepted?;
        senders.push(sender??);
        readers.spawn(async move {
            let mut buffer = vec![0; 4 * PAYLOAD];
            while matches!(reader.read(&mut buffer).await, Ok(1..)) {}
        });
    }
    let cpu = spawn_blocking(move || send(senders)).await??;
    while readers.join_next().await.is_some() {}
    Ok(cpu)
}

fn send(mut senders: Vec<Sender>) -> Result<Duration> {
    let payload = [b'x'; PAYLOAD];
    for sender in &senders {
        sender.set_nodelay(true)?;
    }
    let before = thread_cpu()?;
    for _ in 0..ROUNDS {
        for sender in &mut senders {
            sender.write_all(&payload)?;
        }
    }
    Ok((thread_cpu()? - before) / u32::try_from(ROUNDS * CONNECTIONS).unwrap_or(u32::MAX))
}

/// CPU of this thread so far, from the scheduler's statistics (nanoseconds).
fn thread_cpu() -> Result<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")
        .context("read the CPU of a thread")?;
    let nanos = text
        .split_ascii_whitespace()
        .next()
        .context("an empty schedstat")?;
    Ok(Duration::from_nanos(nanos.parse()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_send_takes_time_but_not_long() {
        let floor = send_floor().await.unwrap();
        assert!(
            floor > Duration::from_nanos(100) && floor < Duration::from_millis(1),
            "{floor:?}"
        );
    }
}
