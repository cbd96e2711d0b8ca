//! Queries of PostgreSQL ("Message Flow" and "Message Formats" of the frontend/backend protocol 3).

#![forbid(unsafe_code)]

mod backend;
mod client;
mod messages;
mod responses;
mod startup;
mod watch;
mod wire;

pub(super) use self::watch::PostgresWatcher;
use super::event::{Ended, Micros, Protocol, WatchEvent};
use crate::stats::termination::Side;

impl Protocol for PostgresWatcher {
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
        match from {
            Side::Client => self.client.skippable(),
            Side::Backend => self.server.skippable(),
        }
    }

    fn skip(&mut self, from: Side, count: u64, now: Micros, out: &mut dyn FnMut(WatchEvent<'_>)) -> Result<(), Ended> {
        match from {
            Side::Client => self.skip_client(count, now, out),
            Side::Backend => self.skip_server(count, now, out),
        }
    }

    fn unanswered(&self) -> usize {
        self.outstanding.queries()
    }
}

#[cfg(test)]
mod tests;
