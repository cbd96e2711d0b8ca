//! The channel between an old process and its replacement, and what is said on it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::net::UnixStream;

use super::inheritance::SocketInfo;
use crate::net::passing;
use crate::server::HandedSession;

/// Version of the hand-over, which both must speak.
pub(super) const VERSION: u32 = 2;
/// Version of what is said while the old process drains. The lower one of both is spoken: 0 has only `draining`.
pub(super) const DRAIN_VERSION: u32 = 1;
/// Sockets of all listeners. More are a mistake, or another program's.
pub(super) const MAX_SOCKETS: usize = 65_536;
/// Sockets in one message.
pub(super) const PORTION: usize = 64;

/// The other end is closed.
pub(super) const ENDED: &str = "the other process has closed the channel";

/// See the table of [`upgrade`](super).
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "snake_case")]
pub(super) enum Message {
    /// The new process, with its process id, asks for the sockets.
    Hello {
        version: u32,
        #[serde(default)] // other versions do without
        pid: u32,
        #[serde(default)]
        drain: u32,
    },
    /// Some of the sockets, each with its descriptor.
    Sockets { version: u32, total: usize, sockets: Vec<SocketInfo> },
    /// All sockets were sent. With it comes the descriptor of a file in memory with the rest.
    State {
        #[serde(default)]
        drain: u32,
    },
    /// The new process accepts. Which files of unix sockets are its own from now on.
    Ready { files: Vec<String> },
    /// The new process cannot start, and why.
    Failed { error: String },
    /// Some of the sessions of datagrams, each with its descriptor. From the first one on, the old process reads no datagrams.
    Sessions { sessions: Vec<HandedSession> },
    /// The old process's admin interface accepts no more.
    Go,
    /// The new process's admin interface accepts.
    Serving,
    /// The old process drains, and has connections left.
    Draining { connections: usize },
    /// Processes that the old one had replaced itself, each with the descriptor of its channel: they are the new one's now.
    Predecessors { processes: Vec<PassedProcess> },
    /// To an old process: this one has its channel.
    Successor { pid: u32 },
    /// To an old process: the channel is about to end, which is no failure.
    Leaving,
    /// To an old process: with the descriptor of a file in memory, which has the call as JSON.
    Call { id: u64 },
    /// The same with the answer.
    Answer { id: u64 },
}

/// A process whose channel is passed on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct PassedProcess {
    pub(super) pid: u32,
    /// The version that it speaks while it drains.
    pub(super) drain: u32,
    /// What it has left.
    pub(super) connections: usize,
}

/// One end. It is no stream, but packets: tokio's type is only what knows when it is ready.
pub(super) struct Channel(UnixStream);

impl Channel {
    /// On a tokio runtime.
    pub(super) fn new(socket: OwnedFd) -> io::Result<Channel> {
        UnixStream::from_std(socket.into()).map(Channel)
    }

    pub(super) async fn send(&self, message: &Message, descriptors: &[BorrowedFd<'_>]) -> Result<(), String> {
        let bytes = serde_json::to_vec(message).map_err(|error| error.to_string())?;
        let sent = self.0.async_io(Interest::WRITABLE, || passing::send(&self.0, &bytes, descriptors)).await;
        sent.map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => ENDED.to_owned(),
            _ => format!("cannot send to the other process: {error}"),
        })
    }

    /// The next message; `None` once the other end is closed.
    pub(super) async fn receive(&self) -> Result<Option<(Message, Vec<OwnedFd>)>, String> {
        let receive = async || self.0.async_io(Interest::READABLE, || passing::receive(&self.0)).await;
        let received = match receive().await {
            // The other end was closed before it had read all. What it has sent comes after this error.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => receive().await,
            received => received,
        };
        let (bytes, descriptors) = match received {
            Ok(Some(packet)) => packet,
            Ok(None) => return Ok(None),
            Err(error) => return Err(format!("cannot receive from the other process: {error}")),
        };
        let message = serde_json::from_slice(&bytes);
        let message =
            message.map_err(|error| format!("the other process is no tidegate that can take over: {error}"))?;
        Ok(Some((message, descriptors)))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Closed with something unread, a channel says so first.
    #[tokio::test]
    async fn last_words_are_received_whatever_was_left_unread() {
        let (one, other) = passing::pair().unwrap();
        let (one, other) = (Channel::new(one).unwrap(), Channel::new(other).unwrap());
        one.send(&Message::Go, &[]).await.unwrap();
        other.send(&Message::Serving, &[]).await.unwrap();
        other.send(&Message::Leaving, &[]).await.unwrap();
        drop(other);
        for expected in [Message::Serving, Message::Leaving] {
            assert_eq!(one.receive().await.unwrap().unwrap().0, expected);
        }
        assert!(one.receive().await.unwrap().is_none());
        assert_eq!(one.send(&Message::Go, &[]).await, Err(ENDED.to_owned()));
    }

    /// Of versions that knew nothing of calls, and of ones that add to a message.
    #[test]
    fn messages_of_other_versions_are_read() {
        let read = |text: &str| serde_json::from_str::<Message>(text).unwrap();
        let hello = read("{\"message\":\"hello\",\"version\":2,\"pid\":7}");
        assert_eq!(hello, Message::Hello { version: 2, pid: 7, drain: 0 });
        assert_eq!(read("{\"message\":\"state\"}"), Message::State { drain: 0 });
        assert_eq!(read("{\"message\":\"state\",\"drain\":9,\"more\":[1]}"), Message::State { drain: 9 });
        // As an older one reads what a message has more than it knows.
        assert_eq!(read("{\"message\":\"go\",\"drain\":9}"), Message::Go);
    }
}
