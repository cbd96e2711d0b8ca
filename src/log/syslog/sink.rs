//! Lines to a syslog server, one message each.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::link::{MessageFraming, SyslogLink};
use crate::config::model::SyslogServer;
use crate::log::writer::{Notice, Sink, Written};
use crate::net::sys;

/// Bytes of the longest message in a datagram: what rsyslog takes unless configured (its `maxMessageSize`).
const MAX_DATAGRAM: usize = 8 * 1024;

/// The longest wait for room, or for a connect.
const ROOM: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// A connect that takes longer has failed.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// The first pause after a failure; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A connection that has lasted for this long is made again without a pause.
const STABLE: Duration = Duration::from_secs(1);

/// Frames sent between two looks at what TCP has delivered.
const FRAMES_BETWEEN_LOOKS: usize = 64;

/// Sends each line as a message. Over a connection, lines wait while there is none.
pub(in crate::log) struct SyslogSink {
    server: SyslogServer,
    state: LinkState,
    pause: Duration,
    /// The frame that is being sent over a stream, and how much of it was.
    frame: Vec<u8>,
    sent: usize,
    in_flight: FramesInFlight,
    notices: VecDeque<Notice>,
}

enum LinkState {
    /// Until it is time to open it again.
    Closed(Instant),
    Connecting(SyslogLink, Instant),
    Open(SyslogLink, Instant),
}

impl SyslogSink {
    /// Connects with the first line.
    pub(in crate::log) fn new(server: SyslogServer) -> SyslogSink {
        SyslogSink {
            server,
            state: LinkState::Closed(Instant::now()),
            pause: Duration::ZERO,
            frame: Vec::new(),
            sent: 0,
            in_flight: FramesInFlight::default(),
            notices: VecDeque::new(),
        }
    }

    /// Opens the link if it is time to. Returns whether it is open.
    fn is_open(&mut self) -> bool {
        if let LinkState::Closed(until) = self.state {
            if Instant::now() < until {
                return false;
            }
            match SyslogLink::open(&self.server) {
                Ok(link) => self.state = LinkState::Connecting(link, Instant::now()),
                Err(error) => self.close(&error),
            }
        }
        if let LinkState::Connecting(link, since) = &self.state {
            let connected = match has_room(link) {
                true => link.connected(),
                false if since.elapsed() < CONNECT_LIMIT => return false,
                false => Err(io::ErrorKind::TimedOut.into()),
            };
            if let Err(error) = connected {
                self.close(&error);
                return false;
            }
            let now = Instant::now();
            if let LinkState::Connecting(link, _) = std::mem::replace(&mut self.state, LinkState::Closed(now)) {
                self.state = LinkState::Open(link, now);
            }
        }
        matches!(self.state, LinkState::Open(..))
    }

    /// Closes a link that has failed, and counts what it took along.
    fn close(&mut self, error: &io::Error) {
        let mut at_once = false;
        if let LinkState::Open(link, since) = &self.state {
            if since.elapsed() >= STABLE {
                self.pause = Duration::ZERO;
            }
            at_once = self.pause.is_zero();
            let unacknowledged = sys::unacknowledged(link.socket()).unwrap_or(0).saturating_sub(self.sent);
            let lost = self.in_flight.lost(unacknowledged);
            if lost > 0 {
                self.notices.push_back(Notice::Lost(self.named(error), lost));
            }
        }
        // A server that has closed may have started again: only a failure to reach it is worth a word.
        if !at_once {
            self.notices.push_back(Notice::Waiting(self.named(error)));
        }
        self.state = LinkState::Closed(Instant::now() + self.pause);
        self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        self.sent = 0;
    }

    fn named(&self, error: &io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("{}: {error}", self.server))
    }

    fn send_datagram(&mut self, line: &[u8]) -> Written {
        let datagram = cut(line, MAX_DATAGRAM);
        let all = Written::Bytes(line.len() + 1);
        // A second time after an error that is another line's.
        for _ in 0..2 {
            let LinkState::Open(link, _) = &self.state else { break };
            let Err(error) = link.send(datagram) else {
                if datagram.len() < line.len() {
                    self.notices.push_back(Notice::Cut);
                }
                return all;
            };
            match Errno::from_io_error(&error) {
                Some(Errno::AGAIN | Errno::NOBUFS | Errno::INTR) if has_room(link) => {}
                Some(Errno::AGAIN | Errno::NOBUFS | Errno::INTR) => break,
                Some(Errno::MSGSIZE) => {
                    self.notices.push_back(Notice::Lost(self.named(&error), 1));
                    return all;
                }
                _ if matches!(self.server, SyslogServer::Unix(_)) => {
                    self.close(&error);
                    break;
                }
                // The answer of the server's host to a datagram that was sent before. This one is not sent yet.
                Some(Errno::CONNREFUSED) => self.notices.push_back(Notice::Lost(self.named(&error), 1)),
                _ => {
                    self.notices.push_back(Notice::Lost(self.named(&error), 1));
                    self.state = LinkState::Closed(Instant::now());
                    return all;
                }
            }
        }
        Written::NotYet
    }

    fn send_frame(&mut self, line: &[u8], framing: MessageFraming) -> Written {
        let frame = framed(line, framing);
        loop {
            if self.sent == 0 {
                self.frame.clone_from(&frame);
            }
            let LinkState::Open(link, _) = &self.state else { return Written::NotYet };
            match link.send(&self.frame[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) => match Errno::from_io_error(&error) {
                    Some(Errno::INTR) => {}
                    Some(Errno::AGAIN) if has_room(link) => {}
                    Some(Errno::AGAIN) => return Written::NotYet,
                    _ => {
                        self.close(&error);
                        return Written::NotYet;
                    }
                },
            }
            if self.sent == self.frame.len() {
                self.sent = 0;
                self.in_flight.push(self.frame.len(), link);
                // It may have been the rest of a line that was dropped meanwhile, without which its frame would not end.
                if self.frame == frame {
                    return Written::Bytes(line.len() + 1);
                }
            }
        }
    }
}

impl Sink for SyslogSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<Written> {
        let line = &bytes[..bytes.iter().position(|&byte| byte == b'\n').unwrap_or(bytes.len())];
        if !self.is_open() {
            return Ok(Written::NotYet);
        }
        let LinkState::Open(link, _) = &self.state else { return Ok(Written::NotYet) };
        Ok(match link.framing {
            MessageFraming::Datagram => self.send_datagram(line),
            framing => self.send_frame(line, framing),
        })
    }

    /// Connects again, as after the server has moved behind the same name.
    fn reopen(&mut self) -> io::Result<()> {
        self.state = LinkState::Closed(Instant::now());
        self.pause = Duration::ZERO;
        self.sent = 0;
        self.in_flight = FramesInFlight::default();
        Ok(())
    }

    fn notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }
}

/// Waits for room, or for the end of a connect, for a moment.
fn has_room(link: &SyslogLink) -> bool {
    poll(&mut [PollFd::new(link.socket(), PollFlags::OUT)], Some(&ROOM)).is_ok_and(|ready| ready > 0)
}

fn framed(line: &[u8], framing: MessageFraming) -> Vec<u8> {
    match framing {
        MessageFraming::OctetCounting => [format!("{} ", line.len()).as_bytes(), line].concat(),
        MessageFraming::NulTerminated => [line, b"\0"].concat(),
        MessageFraming::Datagram => line.to_vec(),
    }
}

/// The beginning of a line, as long as `limit` allows, without a part of a character.
fn cut(line: &[u8], limit: usize) -> &[u8] {
    const fn continues(byte: u8) -> bool {
        byte & 0b1100_0000 == 0b1000_0000
    }
    let Some(&(mut next)) = line.get(limit) else { return line };
    let mut end = limit;
    while continues(next) && end > 0 {
        end -= 1;
        next = line[end];
    }
    &line[..end]
}

/// Frames that the server's host has perhaps not received. At most as many as fit the socket's buffers.
#[derive(Default)]
struct FramesInFlight {
    lengths: VecDeque<usize>,
    bytes: usize,
}

impl FramesInFlight {
    fn push(&mut self, length: usize, link: &SyslogLink) {
        self.lengths.push_back(length);
        self.bytes += length;
        if self.lengths.len().is_multiple_of(FRAMES_BETWEEN_LOOKS) {
            self.delivered(sys::unacknowledged(link.socket()).unwrap_or(0));
        }
    }

    /// Forgets all but the last ones, of which this many bytes are not acknowledged.
    fn delivered(&mut self, unacknowledged: usize) {
        while let Some(&first) = self.lengths.front()
            && self.bytes - first >= unacknowledged
        {
            self.lengths.pop_front();
            self.bytes -= first;
        }
    }

    /// The number of those that are lost with the connection.
    fn lost(&mut self, unacknowledged: usize) -> u64 {
        self.delivered(unacknowledged);
        let FramesInFlight { lengths, .. } = std::mem::take(self);
        lengths.len() as u64
    }
}

#[cfg(test)]
mod tests;
