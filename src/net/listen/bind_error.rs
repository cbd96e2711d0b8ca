//! Error messages of a failed bind or listen: one errno has several causes.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use rustix::io::Errno;

use super::super::addr::Address;
use super::super::interfaces;
use super::options::ListenOptions;

/// The cause of an error of [`listen`](super::listen), and the remedy. `owner` is this process's listener at the same or an
/// overlapping address.
pub fn explain(address: &Address, options: &ListenOptions, error: &io::Error, owner: Option<&str>) -> String {
    let errno = Errno::from_io_error(error);
    let cause = match address {
        Address::Tcp(address) => of_tcp(*address, options, errno, owner),
        Address::Unix(path) => of_unix(path, errno, owner),
    };
    cause.or_else(|| of_any(errno)).unwrap_or_else(|| error.to_string())
}

fn of_tcp(address: SocketAddr, options: &ListenOptions, errno: Option<Errno>, owner: Option<&str>) -> Option<String> {
    let (ip, port) = (address.ip(), address.port());
    Some(match errno? {
        Errno::ADDRINUSE => match owner {
            Some(owner) => format!("{owner} has it already: an address can be bound by one listener only"),
            None if is_listened_on(port) == Some(false) => format!(
                "port {port} is in use by a connection or a socket that does not listen (`ss -tanp` shows it): \
                 choose a port outside of net.ipv4.ip_local_port_range"
            ),
            None => "it is in use: another process listens there (`ss -ltnp` shows which)".to_owned(),
        },
        Errno::ADDRNOTAVAIL if ip.is_ipv6() && !has_ipv6() => "IPv6 is turned off on this host".to_owned(),
        Errno::ADDRNOTAVAIL => {
            format!(
                "this host has no address {ip} (`ip address` lists them; socket.freebind allows one that it does not have yet)"
            )
        }
        Errno::ACCESS if port < first_free_port() => format!(
            "port {port} is below {}: it needs the capability CAP_NET_BIND_SERVICE (systemd: AmbientCapabilities=)",
            first_free_port()
        ),
        Errno::ACCESS => "not permitted by a security module (SELinux, AppArmor, eBPF)".to_owned(),
        Errno::PERM if options.transparent => {
            "socket.transparent needs the capability CAP_NET_ADMIN (systemd: AmbientCapabilities=)".to_owned()
        }
        Errno::AFNOSUPPORT if ip.is_ipv6() => "this kernel has no IPv6".to_owned(),
        Errno::PROTONOSUPPORT | Errno::NOPROTOOPT if options.mptcp => {
            "socket.mptcp: this kernel has no Multipath TCP, or net.mptcp.enabled is 0".to_owned()
        }
        Errno::NODEV => format!("the network interface of {ip} is gone (`ip link` lists those there are)"),
        Errno::INVAL if is_link_local(ip) => {
            "a link-local address needs its network interface: fe80::1%eth0".to_owned()
        }
        _ => return None,
    })
}

fn of_unix(path: &Path, errno: Option<Errno>, owner: Option<&str>) -> Option<String> {
    let folder = path.parent().unwrap_or(Path::new("/")).display();
    Some(match errno? {
        Errno::ADDRINUSE => match (owner, fs::symlink_metadata(path)) {
            (Some(owner), _) => format!("{owner} has it already: an address can be bound by one listener only"),
            (None, Ok(metadata)) if !metadata.file_type().is_socket() => {
                "a file of this name exists and is not a socket: remove it, or choose another path".to_owned()
            }
            (None, _) => "it is in use: another process listens there (`ss -lxp` shows which)".to_owned(),
        },
        Errno::NOENT => format!("there is no directory {folder}"),
        Errno::NOTDIR => format!("{folder} is not a folder"),
        Errno::ACCESS | Errno::PERM => {
            format!("not permitted: the user that tidegate runs as must be allowed to write to the folder {folder}")
        }
        Errno::ROFS => format!("the file system of {folder} is read-only"),
        Errno::NOSPC => format!("the file system of {folder} is full"),
        Errno::NAMETOOLONG => "the path is too long for a socket".to_owned(),
        _ => return None,
    })
}

fn of_any(errno: Option<Errno>) -> Option<String> {
    Some(match errno? {
        Errno::MFILE => "too many open files: raise the hard limit (ulimit -Hn, LimitNOFILE=)".to_owned(),
        Errno::NFILE => "too many open files on this host: raise fs.file-max".to_owned(),
        Errno::NOBUFS | Errno::NOMEM => "this host has no memory left for sockets".to_owned(),
        _ => return None,
    })
}

/// The first port that needs no privilege.
fn first_free_port() -> u16 {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap_or_default();
    text.trim().parse().unwrap_or(1024)
}

/// Whether some socket of this network namespace listens on a port; `None` when that cannot be read.
fn is_listened_on(port: u16) -> Option<bool> {
    // proc(5): the local address ends with the port in hexadecimal digits, the state 0A is LISTEN.
    let end = format!(":{port:04X}");
    let listens = |line: &str| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        fields.next().is_some_and(|local| local.ends_with(&end)) && fields.nth(1) == Some("0A")
    };
    let tables = ["/proc/self/net/tcp", "/proc/self/net/tcp6"].map(fs::read_to_string);
    let mut read = tables.into_iter().flatten().peekable();
    read.peek()?;
    Some(read.any(|table| table.lines().any(listens)))
}

fn has_ipv6() -> bool {
    interfaces::is_own(IpAddr::V6(std::net::Ipv6Addr::LOCALHOST))
        && fs::read_to_string("/proc/self/net/if_inet6").is_ok_and(|table| !table.trim().is_empty())
}

fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;
    use std::sync::Arc;

    use super::*;
    use crate::net::dial::Options;
    use crate::net::listen::{Sharing, listen};

    const OPTIONS: ListenOptions = ListenOptions {
        backlog: 1,
        connection: Options { nodelay: false, keepalive: None },
        fast_open: 0,
        defer_accept: 0,
        mptcp: false,
        transparent: false,
        freebind: false,
        datagrams: false,
        sharing: Sharing::Exclusive,
        v6_only: false,
        mode: None,
    };

    /// The message of a bind that fails.
    fn bind_error(address: &Address, owner: Option<&str>) -> String {
        let error = listen(address, &OPTIONS).unwrap_err();
        explain(address, &OPTIONS, &error, owner)
    }

    fn unix(path: &Path) -> Address {
        Address::Unix(Arc::new(path.to_owned()))
    }

    #[test]
    fn an_address_in_use_is_anothers_or_ones_own() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::Tcp(taken.local_addr().unwrap());
        assert!(bind_error(&address, None).contains("another process listens there (`ss -ltnp`"));
        assert!(bind_error(&address, Some("listener web")).starts_with("listener web has it already"));
    }

    #[test]
    fn a_port_that_only_a_connection_has_is_told_as_such() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connection = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let address = Address::Tcp(connection.local_addr().unwrap());
        let text = bind_error(&address, None);
        assert!(text.contains("a connection or a socket that does not listen"), "{text}");
    }

    #[test]
    fn an_address_of_another_host_is_told_as_such() {
        let text = bind_error(&Address::Tcp("192.0.2.1:0".parse().unwrap()), None);
        assert!(text.contains("this host has no address 192.0.2.1"), "{text}");
    }

    #[test]
    fn each_cause_of_a_unix_socket_has_its_words() {
        let folder = tempfile::tempdir().unwrap();
        let (file, socket) = (folder.path().join("file"), folder.path().join("socket"));
        fs::write(&file, "").unwrap();
        let _listening = UnixListener::bind(&socket).unwrap();
        for (path, expected) in [
            (socket, "another process listens there (`ss -lxp`"),
            (file.clone(), "exists and is not a socket"),
            (folder.path().join("none/socket"), "there is no directory "),
            (file.join("socket"), "is not a folder"),
        ] {
            let text = bind_error(&unix(&path), None);
            assert!(text.contains(expected), "{}: {text}", path.display());
        }
    }

    #[test]
    fn a_denied_port_and_a_denied_folder_differ() {
        let of = |address: &str, options: &ListenOptions, errno: Errno| {
            explain(&Address::Tcp(address.parse().unwrap()), options, &errno.into(), None)
        };
        let transparent = ListenOptions { transparent: true, ..OPTIONS };
        let mptcp = ListenOptions { mptcp: true, ..OPTIONS };
        if first_free_port() > 80 {
            assert!(of("127.0.0.1:80", &OPTIONS, Errno::ACCESS).contains("CAP_NET_BIND_SERVICE"));
        }
        assert!(of("127.0.0.1:8080", &OPTIONS, Errno::ACCESS).contains("security module"));
        assert!(of("127.0.0.1:8080", &transparent, Errno::PERM).contains("CAP_NET_ADMIN"));
        assert!(of("127.0.0.1:8080", &mptcp, Errno::PROTONOSUPPORT).contains("Multipath TCP"));
        assert!(of("127.0.0.1:8080", &OPTIONS, Errno::MFILE).contains("LimitNOFILE"));
        let folder = explain(&unix(Path::new("/run/a.sock")), &OPTIONS, &Errno::ACCESS.into(), None);
        assert!(folder.contains("write to the folder /run"), "{folder}");
    }
}
