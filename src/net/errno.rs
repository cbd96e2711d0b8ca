//! Classification of failed system calls.
//!
//! The meaning of an errno depends on the call. EADDRNOTAVAIL after bind(2) is a wrong `source`; after connect(2), the local
//! ports towards *one* destination are exhausted. An error is a pair of call and errno; its [`Scope`] decides what follows.

use std::fmt;
use std::io;

use rustix::io::Errno;

/// The system calls of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// socket(2).
    Socket,
    /// setsockopt(2).
    Option,
    /// bind(2), of a listening socket or of one that is going to connect.
    Bind,
    /// connect(2), its later outcome (SO_ERROR) included.
    Connect,
    /// accept4(2).
    Accept,
    /// recv(2), send(2), splice(2), shutdown(2) on a connected socket.
    Transfer,
    /// epoll_create1(2), epoll_ctl(2), epoll_wait(2), eventfd(2), pipe2(2).
    Event,
}

/// What an error affects, and so what may still succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Nothing failed. Repeat the call: at once after EINTR, once the descriptor is ready after EAGAIN.
    Retry,
    /// One connection, ended by its peer or the network. Others are unaffected.
    Connection,
    /// The peer, or the route to it. Another destination may work. Counts against the peer.
    Destination,
    /// The local address, or its free ports towards one destination. Another source address or destination may work. Does not
    /// count against the peer.
    LocalAddress,
    /// A limit or a missing privilege of this process or its user. The same call fails until that changes.
    Process,
    /// A limit of the host: memory, open files. As [`Scope::Process`].
    Host,
    /// A defect of tidegate, or a kernel without a required feature. A retry does not help.
    Program,
}

impl Scope {
    /// The scope of an errno after a call. Undocumented pairs get the scope in which a mistake costs least.
    pub fn of(call: Call, errno: Errno) -> Scope {
        match errno {
            Errno::INTR => return Scope::Retry,
            Errno::MFILE => return Scope::Process,
            Errno::NFILE | Errno::NOMEM | Errno::NOBUFS => return Scope::Host,
            Errno::BADF | Errno::FAULT | Errno::NOTSOCK | Errno::NOSYS => return Scope::Program,
            _ => {}
        }
        match call {
            Call::Socket => of_socket(errno),
            Call::Option => of_option(errno),
            Call::Bind => of_bind(errno),
            Call::Connect => of_connect(errno),
            Call::Accept => of_accept(errno),
            Call::Transfer => of_transfer(errno),
            Call::Event => of_event(errno),
        }
    }

    /// Whether the cause is this process, this host or a defect, so that no other peer or local address helps.
    pub fn is_ours(self) -> bool {
        matches!(self, Scope::Process | Scope::Host | Scope::Program)
    }
}

fn of_socket(errno: Errno) -> Scope {
    match errno {
        // No IPv6 on this host, or a sandbox forbids the family (systemd: RestrictAddressFamilies=). Another family may work.
        Errno::AFNOSUPPORT | Errno::ACCESS | Errno::PERM => Scope::Destination,
        _ => Scope::Program,
    }
}

fn of_option(errno: Errno) -> Scope {
    match errno {
        // IP_TRANSPARENT without CAP_NET_ADMIN.
        Errno::PERM | Errno::ACCESS => Scope::Process,
        _ => Scope::Program,
    }
}

fn of_bind(errno: Errno) -> Scope {
    match errno {
        // A socket file on a full disk.
        Errno::NOSPC | Errno::DQUOT => Scope::Host,
        Errno::INVAL => Scope::Program,
        // EADDRINUSE, EADDRNOTAVAIL, EACCES, EPERM, ENODEV, EAFNOSUPPORT; ENOENT, ENOTDIR, EROFS and so on of a socket file.
        _ => Scope::LocalAddress,
    }
}

fn of_connect(errno: Errno) -> Scope {
    match errno {
        Errno::INPROGRESS | Errno::ALREADY => Scope::Retry,
        // The accept queue of a unix socket is full. (TCP: no routing entry at the moment.)
        Errno::AGAIN => Scope::Retry,
        // Without bind(2) before, EADDRINUSE is another word for it: every local port is in use towards this destination.
        Errno::ADDRNOTAVAIL | Errno::ADDRINUSE => Scope::LocalAddress,
        Errno::ISCONN => Scope::Program,
        // ECONNREFUSED, ETIMEDOUT, ECONNRESET; EHOSTUNREACH, ENETUNREACH, EHOSTDOWN, ENETDOWN, ENONET, EPROTO, ENOPROTOOPT,
        // EOPNOTSUPP, EMSGSIZE (routes and ICMP); EACCES, EPERM (a broadcast address, a firewall's rule for it);
        // EINVAL, ENODEV (a link-local address without its interface); ENOENT, ENOTDIR, ELOOP, EPROTOTYPE of a socket file.
        _ => Scope::Destination,
    }
}

fn of_accept(errno: Errno) -> Scope {
    match errno {
        Errno::AGAIN => Scope::Retry,
        // The client left while it waited, or a network error is pending on its socket (accept(2)).
        Errno::CONNABORTED
        | Errno::PERM
        | Errno::PROTO
        | Errno::NOPROTOOPT
        | Errno::OPNOTSUPP
        | Errno::TIMEDOUT
        | Errno::NETDOWN
        | Errno::NETUNREACH
        | Errno::HOSTDOWN
        | Errno::HOSTUNREACH
        | Errno::NONET => Scope::Connection,
        // Not a listening socket.
        Errno::INVAL => Scope::Program,
        // A security module's EACCES comes before a connection is taken, so it comes again at once.
        _ => Scope::Process,
    }
}

fn of_transfer(errno: Errno) -> Scope {
    match errno {
        Errno::AGAIN => Scope::Retry,
        Errno::CONNRESET | Errno::CONNABORTED | Errno::PIPE | Errno::NOTCONN => Scope::Connection,
        // splice(2) of what cannot be spliced: the caller copies instead.
        Errno::INVAL | Errno::OPNOTSUPP | Errno::SPIPE | Errno::MSGSIZE => Scope::Program,
        // ETIMEDOUT (keepalive, retransmissions), EHOSTUNREACH, ENETUNREACH, ENETDOWN, EHOSTDOWN, EPROTO, ECONNREFUSED (ICMP), EPERM.
        _ => Scope::Destination,
    }
}

fn of_event(errno: Errno) -> Scope {
    match errno {
        // fs.epoll.max_user_watches; the pipes of an unprivileged user (pipe-user-pages-hard).
        Errno::NOSPC | Errno::PERM | Errno::BUSY => Scope::Process,
        // EEXIST, ENOENT, EINVAL, ELOOP.
        _ => Scope::Program,
    }
}

/// A system call that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CallError {
    /// The call.
    pub call: Call,
    /// Its errno.
    pub errno: Errno,
}

impl CallError {
    /// From an [`io::Error`]; `None` unless it is the kernel's.
    pub fn from_io(call: Call, error: &io::Error) -> Option<CallError> {
        error.raw_os_error().map(|raw| CallError { call, errno: Errno::from_raw_os_error(raw) })
    }

    /// What the error affects.
    pub fn scope(self) -> Scope {
        Scope::of(self.call, self.errno)
    }
}

impl fmt::Display for CallError {
    /// The cause, and the remedy where there is a usual one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.call, self.errno) {
            (_, Errno::MFILE) => {
                "too many open files in this process (raise its limit: ulimit -Hn, systemd: LimitNOFILE=)"
            }
            (_, Errno::NFILE) => "too many open files on this host (sysctl fs.file-max)",
            (_, Errno::NOMEM | Errno::NOBUFS) => "this host has no memory left for sockets",
            (Call::Event, Errno::NOSPC) => "this user has no epoll watch left (sysctl fs.epoll.max_user_watches)",
            (Call::Socket, Errno::AFNOSUPPORT) => "this host or this process's sandbox has no such address family",
            (Call::Bind, Errno::ADDRNOTAVAIL) => "the source address is not an address of this host (pools[].source)",
            (Call::Connect, Errno::ADDRNOTAVAIL | Errno::ADDRINUSE) => {
                "no local port is left towards it (pools[].source adds addresses, sysctl net.ipv4.ip_local_port_range ports)"
            }
            (Call::Connect, Errno::AGAIN) => "its listen queue is full",
            (Call::Connect, Errno::CONNREFUSED) => "connection refused",
            (Call::Connect, Errno::NOENT) => "there is no such socket file",
            (Call::Connect, Errno::PROTOTYPE) => "the socket file is not of a stream socket",
            (Call::Connect, Errno::PERM) => "a rule of this host's firewall forbids it",
            _ => return self.errno.fmt(f),
        })
    }
}

impl std::error::Error for CallError {}

impl From<CallError> for io::Error {
    fn from(error: CallError) -> io::Error {
        error.errno.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every number that the manual pages and the kernel's sources name for a call.
    #[test]
    fn scope_of_every_known_error() {
        use Scope::{Connection, Destination, Host, LocalAddress, Process, Program, Retry};
        let everywhere = [
            (Errno::INTR, Retry),
            (Errno::MFILE, Process),
            (Errno::NFILE, Host),
            (Errno::NOMEM, Host),
            (Errno::NOBUFS, Host),
            (Errno::BADF, Program),
            (Errno::FAULT, Program),
            (Errno::NOTSOCK, Program),
            (Errno::NOSYS, Program),
        ];
        let table: [(Call, &[(Errno, Scope)]); 7] = [
            (
                Call::Socket,
                &[
                    (Errno::AFNOSUPPORT, Destination),
                    (Errno::ACCESS, Destination),
                    (Errno::PERM, Destination),
                    (Errno::INVAL, Program),
                    (Errno::PROTONOSUPPORT, Program),
                ],
            ),
            (
                Call::Option,
                &[
                    (Errno::PERM, Process),
                    (Errno::ACCESS, Process),
                    (Errno::NOPROTOOPT, Program),
                    (Errno::OPNOTSUPP, Program),
                    (Errno::INVAL, Program),
                ],
            ),
            (
                Call::Bind,
                &[
                    (Errno::ADDRINUSE, LocalAddress),
                    (Errno::ADDRNOTAVAIL, LocalAddress),
                    (Errno::ACCESS, LocalAddress),
                    (Errno::PERM, LocalAddress),
                    (Errno::NODEV, LocalAddress),
                    (Errno::AFNOSUPPORT, LocalAddress),
                    (Errno::NOENT, LocalAddress),
                    (Errno::NOTDIR, LocalAddress),
                    (Errno::ROFS, LocalAddress),
                    (Errno::LOOP, LocalAddress),
                    (Errno::NAMETOOLONG, LocalAddress),
                    (Errno::NOSPC, Host),
                    (Errno::DQUOT, Host),
                    (Errno::INVAL, Program),
                ],
            ),
            (
                Call::Connect,
                &[
                    (Errno::INPROGRESS, Retry),
                    (Errno::ALREADY, Retry),
                    (Errno::AGAIN, Retry),
                    (Errno::ADDRNOTAVAIL, LocalAddress),
                    (Errno::ADDRINUSE, LocalAddress),
                    (Errno::CONNREFUSED, Destination),
                    (Errno::CONNRESET, Destination),
                    (Errno::TIMEDOUT, Destination),
                    (Errno::HOSTUNREACH, Destination),
                    (Errno::HOSTDOWN, Destination),
                    (Errno::NETUNREACH, Destination),
                    (Errno::NETDOWN, Destination),
                    (Errno::NONET, Destination),
                    (Errno::PROTO, Destination),
                    (Errno::NOPROTOOPT, Destination),
                    (Errno::OPNOTSUPP, Destination),
                    (Errno::MSGSIZE, Destination),
                    (Errno::ACCESS, Destination),
                    (Errno::PERM, Destination),
                    (Errno::INVAL, Destination),
                    (Errno::NODEV, Destination),
                    (Errno::AFNOSUPPORT, Destination),
                    (Errno::NOENT, Destination),
                    (Errno::NOTDIR, Destination),
                    (Errno::LOOP, Destination),
                    (Errno::PROTOTYPE, Destination),
                    (Errno::ISCONN, Program),
                ],
            ),
            (
                Call::Accept,
                &[
                    (Errno::AGAIN, Retry),
                    (Errno::CONNABORTED, Connection),
                    (Errno::PERM, Connection),
                    (Errno::PROTO, Connection),
                    (Errno::NOPROTOOPT, Connection),
                    (Errno::OPNOTSUPP, Connection),
                    (Errno::TIMEDOUT, Connection),
                    (Errno::NETDOWN, Connection),
                    (Errno::NETUNREACH, Connection),
                    (Errno::HOSTDOWN, Connection),
                    (Errno::HOSTUNREACH, Connection),
                    (Errno::NONET, Connection),
                    (Errno::ACCESS, Process),
                    (Errno::INVAL, Program),
                ],
            ),
            (
                Call::Transfer,
                &[
                    (Errno::AGAIN, Retry),
                    (Errno::CONNRESET, Connection),
                    (Errno::CONNABORTED, Connection),
                    (Errno::PIPE, Connection),
                    (Errno::NOTCONN, Connection),
                    (Errno::TIMEDOUT, Destination),
                    (Errno::HOSTUNREACH, Destination),
                    (Errno::HOSTDOWN, Destination),
                    (Errno::NETUNREACH, Destination),
                    (Errno::NETDOWN, Destination),
                    (Errno::PROTO, Destination),
                    (Errno::CONNREFUSED, Destination),
                    (Errno::PERM, Destination),
                    (Errno::INVAL, Program),
                    (Errno::OPNOTSUPP, Program),
                    (Errno::SPIPE, Program),
                    (Errno::MSGSIZE, Program),
                ],
            ),
            (
                Call::Event,
                &[
                    (Errno::NOSPC, Process),
                    (Errno::PERM, Process),
                    (Errno::BUSY, Process),
                    (Errno::EXIST, Program),
                    (Errno::NOENT, Program),
                    (Errno::INVAL, Program),
                    (Errno::LOOP, Program),
                ],
            ),
        ];
        for (call, of_call) in table {
            for (errno, scope) in everywhere.iter().chain(of_call) {
                assert_eq!(Scope::of(call, *errno), *scope, "{call:?}: {errno}");
            }
        }
    }

    #[test]
    fn ours_is_what_no_other_address_mends() {
        let ours = [Scope::Process, Scope::Host, Scope::Program];
        let others = [Scope::Retry, Scope::Connection, Scope::Destination, Scope::LocalAddress];
        assert!(ours.iter().all(|scope| scope.is_ours()) && !others.iter().any(|scope| scope.is_ours()));
    }

    #[test]
    fn one_number_with_two_causes_has_two_texts() {
        let text = |call, errno| CallError { call, errno }.to_string();
        assert!(text(Call::Bind, Errno::ADDRNOTAVAIL).contains("is not an address of this host"));
        assert!(text(Call::Connect, Errno::ADDRNOTAVAIL).contains("no local port is left"));
        assert!(text(Call::Event, Errno::NOSPC).contains("max_user_watches"));
        assert_eq!(text(Call::Connect, Errno::CONNREFUSED), "connection refused");
        assert_eq!(text(Call::Transfer, Errno::CONNRESET), "Connection reset by peer (os error 104)");
    }
}
