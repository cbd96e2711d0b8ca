//! Commands of Redis and Valkey (RESP2 and RESP3).

#![forbid(unsafe_code)]

mod client;
mod commands;
mod replies;
mod resp;
mod server;
mod watch;

pub(super) use self::watch::RedisWatcher;
use super::event::{Ended, Micros, Protocol, WatchEvent};
use crate::stats::termination::Side;

impl Protocol for RedisWatcher {
    fn read(
        &mut self,
        from: Side,
        bytes: &[u8],
        now: Micros,
        out: &mut dyn FnMut(WatchEvent<'_>),
    ) -> Result<(), Ended> {
        match from {
            Side::Client => self.read_client(bytes, now),
            Side::Backend => self.read_server(bytes, now, out),
        }
    }

    fn skippable(&self, from: Side) -> u64 {
        match from {
            Side::Client => self.client.skippable(),
            Side::Backend => self.server.skippable(),
        }
    }

    fn skip(&mut self, from: Side, count: u64, _: Micros, _: &mut dyn FnMut(WatchEvent<'_>)) -> Result<(), Ended> {
        // The end of a line follows, so that nothing ends here.
        match from {
            Side::Client => self.client.skip(count),
            Side::Backend => self.server.skip(count),
        }
        Ok(())
    }

    fn unanswered(&self) -> usize {
        self.outstanding.queries()
    }
}

#[cfg(test)]
mod tests;
