//! What the command line says about heartbeats.

use std::str::FromStr;
use std::time::Duration;

/// Options of the scenarios in which leases are renewed.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Options of heartbeats and renewals")]
pub struct HeartbeatArguments {
    /// The grace period of the control plane, as the proxy's heartbeats.nodeMonitorGracePeriod
    #[arg(long, value_name = "TIME", default_value = "50s")]
    pub grace: Time,
    /// As the proxy's heartbeats.toleratedLosses
    #[arg(long, value_name = "M", default_value_t = 2)]
    pub tolerated_losses: u32,
    /// As the proxy's heartbeats.latencySpread
    #[arg(long, value_name = "TIME", default_value = "3s")]
    pub latency_spread: Time,
    /// The target's replicas keep for each other what is not written yet
    #[arg(long)]
    pub peers: bool,
    /// The target writes every renewal: an apiserver, or a proxy that does not absorb
    #[arg(long)]
    pub baseline: bool,
    /// The apiserver's process, on this machine: what a renewal costs there, by `renewals`
    #[arg(long, value_name = "PID")]
    pub apiserver_pid: Option<u32>,
    /// Share of the kubelets that are killed at random [default of heartbeats: 40%]
    #[arg(long, value_name = "SHARE")]
    pub deaths: Option<Share>,
    /// Share of the renewals that are lost on the way to the target, or their answers
    #[arg(long, value_name = "SHARE")]
    pub lose: Option<Share>,
    /// Cut the proxies off from the embedded apiserver for so long, from so long after the start
    #[arg(long, value_name = "TIME[@TIME]")]
    pub cut: Option<Moment<Time>>,
    /// The connections of the cut stay open, and nothing moves on them
    #[arg(long)]
    pub silent: bool,
    /// Kill a replica, a process of this machine, so long after the start; may be repeated
    #[arg(long, value_name = "PID[@TIME]")]
    pub kill: Vec<Moment<i32>>,
}

/// A length of time: `50s`, `5m`, or seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time(pub Duration);

impl FromStr for Time {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (number, unit) = match text.strip_suffix('m') {
            Some(number) => (number, 60.0),
            None => (text.strip_suffix('s').unwrap_or(text), 1.0),
        };
        let number: f64 = number.parse().map_err(|_| "say it as 50s or 5m")?;
        let time = Duration::try_from_secs_f64(number * unit);
        time.map(Self).map_err(|_| "say it as 50s or 5m")
    }
}

/// A share: `2%` or `0.02`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share(pub f64);

impl FromStr for Share {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (number, of) = match text.strip_suffix('%') {
            Some(number) => (number, 100.0),
            None => (text, 1.0),
        };
        let share = number.parse::<f64>().map(|number| number / of);
        let share = share.ok().filter(|share| (0.0..=1.0).contains(share));
        share.map(Self).ok_or("say it as 2% or 0.02")
    }
}

/// Something, and how long after the start of the measured part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment<T> {
    /// What.
    pub what: T,
    /// When; a third of the measured part where it is not said.
    pub at: Option<Duration>,
}

impl<T: FromStr> FromStr for Moment<T> {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (what, at) = match text.split_once('@') {
            Some((what, at)) => (what, Some(at.parse::<Time>()?.0)),
            None => (text, None),
        };
        let what = what.parse().map_err(|_| "say it as WHAT@20s")?;
        Ok(Self { what, at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_shares_are_read_as_people_write_them() {
        let seconds = |text: &str| text.parse::<Time>().map(|time| time.0.as_secs_f64());
        assert_eq!((seconds("50s"), seconds("1.5m")), (Ok(50.0), Ok(90.0)));
        assert_eq!(seconds("7"), Ok(7.0));
        assert!(seconds("-1s").is_err() && seconds("soon").is_err());
        assert_eq!("2%".parse(), Ok(Share(0.02)));
        assert!("200%".parse::<Share>().is_err());
        let at = Some(Duration::from_secs(20));
        assert_eq!("17@20s".parse(), Ok(Moment { what: 17, at }));
        assert_eq!("17".parse(), Ok(Moment { what: 17, at: None }));
    }
}
