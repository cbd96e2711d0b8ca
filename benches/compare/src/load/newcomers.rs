//! Newcomers beside those who keep a balancer busy: how long the last one waits for its answer.

use std::io;
use std::net::SocketAddrV4;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::{SendFlags, sockopt};

use super::tls::Connector;
use super::{DRAIN_TIMEOUT, Load, broken, nanoseconds};
use crate::result::{Newcomers, Outcome};
use crate::scenario::{AT_ONCE, ONE_BY_ONE, Tls};
use crate::sock;

/// Until a balancer has accepted what a flood has connected.
const ACCEPTED: u64 = 300_000_000;

impl Load<'_> {
    /// 200 at once, then 40 of which each comes when the one before it was answered.
    pub(super) fn newcomers(&mut self, outcome: &mut Outcome) -> io::Result<()> {
        self.open(usize::MAX)?;
        let warm = self.clients.now() + nanoseconds(self.args.warmup);
        self.turn_until(warm, |_| false)?;
        let start = self.clients.now();
        self.clients.window = (start, u64::MAX);
        let mut at_once = self.arrive(AT_ONCE, AT_ONCE)?;
        let mut one_by_one = self.arrive(ONE_BY_ONE, 1)?;
        let end = self.clients.now();
        self.clients.window.1 = end;
        outcome.seconds = (end - start) as f64 / 1e9;
        let (at_once_p50, at_once_last) = summary(&mut at_once);
        let (one_by_one_p50, one_by_one_last) = summary(&mut one_by_one);
        outcome.newcomers = Some(Newcomers { at_once_p50, at_once_last, one_by_one_p50, one_by_one_last });
        Ok(())
    }

    /// `count` newcomers, `together` at a time, beside a flood where there is one. Returns how long each waited.
    fn arrive(&mut self, count: usize, together: usize) -> io::Result<Vec<u64>> {
        let flood = match (self.scenario.hellos, self.args.flood, &self.args.certificate) {
            (0, ..) => None,
            (hellos, Some(target), Some(certificate)) => {
                let hello = Connector::new(Tls::Full, certificate)?.open()?.hello().to_vec();
                Some(Flood::connect(target, hellos, hello)?)
            }
            _ => return broken(format!("{} needs --flood and --certificate", self.scenario.name)),
        };
        if let Some(flood) = &flood {
            let accepted = self.clients.now() + ACCEPTED;
            self.turn_until(accepted, |_| false)?;
            flood.send()?;
        }
        for _ in 0..count / together {
            self.clients.add_newcomers(&mut self.hub, together)?;
            let deadline = self.clients.now() + DRAIN_TIMEOUT;
            if !self.turn_until(deadline, |load| load.clients.newcomers_are_up())? {
                return broken("newcomers were not answered in time");
            }
        }
        Ok(std::mem::take(&mut self.clients.waits))
    }
}

/// Median and maximum, in milliseconds.
fn summary(waits: &mut [u64]) -> (f64, f64) {
    waits.sort_unstable();
    let ms = |wait: Option<&u64>| wait.copied().unwrap_or_default() as f64 / 1e6;
    (ms(waits.get(waits.len() / 2)), ms(waits.last()))
}

/// Connections that all send the same ClientHello, and nothing else: a key exchange and a signature each for the
/// balancer, none for the load.
struct Flood {
    sockets: Vec<OwnedFd>,
    hello: Vec<u8>,
}

impl Flood {
    fn connect(target: SocketAddrV4, count: usize, hello: Vec<u8>) -> io::Result<Flood> {
        let connect = |_| {
            let socket = sock::connect(target)?;
            // Closed without a trace, so that no state is left of thousands.
            sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
            Ok(socket)
        };
        Ok(Flood { sockets: (0..count).map(connect).collect::<io::Result<_>>()?, hello })
    }

    fn send(&self) -> io::Result<()> {
        for socket in &self.sockets {
            match sock::ready(rustix::net::send(socket, &self.hello, SendFlags::NOSIGNAL))? {
                Some(sent) if sent == self.hello.len() => {}
                _ => return broken("a ClientHello was not taken at once"),
            }
        }
        Ok(())
    }
}
