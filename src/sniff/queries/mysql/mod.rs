//! Queries of MySQL and MariaDB ("Client/Server Protocol" of both manuals).

#![forbid(unsafe_code)]

mod answer_packet;
mod answers;
mod capability;
mod client;
mod command;
mod commands;
mod login;
mod packet;
mod server;
mod watch;
mod wire;

pub use self::login::MysqlLogin;
pub(super) use self::watch::MysqlWatcher;
use super::event::{Ended, Micros, Protocol, WatchEvent};
use crate::stats::termination::Side;

impl Protocol for MysqlWatcher {
    fn read(
        &mut self,
        from: Side,
        bytes: &[u8],
        now: Micros,
        out: &mut dyn FnMut(WatchEvent<'_>),
    ) -> Result<(), Ended> {
        match from {
            Side::Client => self.read_client(bytes, now, out),
            Side::Backend => self.read_server(bytes, now, out),
        }
    }

    fn skippable(&self, from: Side) -> u64 {
        let (framing, is_read) = match from {
            Side::Client => (&self.from_client, self.client.is_read()),
            Side::Backend => (&self.from_server, self.server.is_read()),
        };
        if is_read { framing.left() } else { 0 }
    }

    fn skip(&mut self, from: Side, count: u64, now: Micros, out: &mut dyn FnMut(WatchEvent<'_>)) -> Result<(), Ended> {
        match from {
            Side::Client if self.from_client.skip(count) => self.client_packet(now, out),
            Side::Backend if self.from_server.skip(count) => self.server_packet(now, out),
            Side::Client | Side::Backend => Ok(()),
        }
    }

    fn unanswered(&self) -> usize {
        self.outstanding.queries()
    }
}

#[cfg(test)]
mod tests;
