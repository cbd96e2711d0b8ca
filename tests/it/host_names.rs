//! A host name with several addresses is as many backends.

use std::collections::HashSet;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use crate::support::backend::Backend;
use crate::support::client::connect;
use crate::support::process::bound;
use crate::support::stats::{ADMIN, backend, get};
use crate::support::tidegate::Tidegate;
use crate::support::{DEADLINE, eventually};

const CONNECTIONS: usize = 60;

/// Four addresses of one host name, all but one with a backend that says its address.
struct Four {
    port: u16,
    _backends: Vec<Backend>,
}

fn address(host: u8, port: u16) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::new(127, 0, 1, host).into(), port)
}

impl Four {
    fn with_dead(dead: u8) -> Four {
        // Free on every address.
        let port = TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port();
        let alive = (1..=4).filter(|&host| host != dead);
        let named = |host| Backend::named_at(address(host, port), &format!("{:<15}", format!("127.0.1.{host}")));
        Four { port, _backends: alive.map(named).collect() }
    }

    fn start(&self, balance: &str) -> Tidegate {
        let yaml = format!(
            "{ADMIN}listeners: [{{ name: in, bind: \"127.0.0.1:0\", pool: p }}]\n\
             pools: [{{ name: p, balance: {balance}, health: {{ tcp: {{}}, interval: 100ms, fall: 1 }}, timeouts: {{ connect: 60s }}, \
             backends: [{{ name: db, address: \"four.test:{}\", max_connections: {CONNECTIONS} }}] }}]\n",
            self.port
        );
        let hosts: String = (1..=4).map(|host| format!("127.0.1.{host} four.test\n")).collect();
        Tidegate::with(&yaml).hosts(&format!("127.0.0.1 localhost\n{hosts}")).start()
    }

    fn name(&self, host: u8) -> String {
        format!("db@{}", address(host, self.port))
    }
}

/// The address that a client reaches, as its backend says it.
fn reached(tidegate: &Tidegate) -> String {
    let mut said = [0; 15];
    connect(&tidegate.at("in")).read_exact(&mut said).expect("a backend");
    String::from_utf8_lossy(&said).trim().to_owned()
}

#[test]
fn one_dead_address_of_four_gets_no_client_and_has_its_own_row() {
    for dead in [1, 3] {
        let four = Four::with_dead(dead);
        let tidegate = four.start("round_robin");
        assert_eq!(tidegate.wait_for_down(&four.name(dead)).field("reason"), "connection refused");
        (1..=4).filter(|&host| host != dead).for_each(|host| tidegate.wait_for_up(&four.name(host)));
        let all: HashSet<String> = (0..CONNECTIONS).map(|_| reached(&tidegate)).collect();
        let alive = (1..=4).filter(|&host| host != dead).map(|host| format!("127.0.1.{host}")).collect();
        assert_eq!(all, alive);

        let view = tidegate.view();
        let metrics = get(&tidegate.stats_port(), "/metrics").text();
        let once = bound(env!("CARGO_BIN_EXE_tidegate"), "KILL")
            .args(["top", "--once", "--stats", &tidegate.stats_port().to_string()])
            .output()
            .expect("top");
        let once = String::from_utf8_lossy(&once.stdout).into_owned();
        for host in 1..=4 {
            let (name, shown) = (four.name(host), backend(&view, &four.name(host)));
            let connections = if host == dead { 0 } else { CONNECTIONS as u64 / 3 };
            assert_eq!((shown.connections, shown.up, shown.connect_failures), (connections, host != dead, 0), "{name}");
            assert_eq!(shown.address, address(host, four.port).to_string());
            let up = format!("tidegate_backend_up{{pool=\"p\",backend=\"{name}\"}} {}", u8::from(host != dead));
            assert!(metrics.contains(&up), "{up} is not in\n{metrics}");
            assert!(once.contains(&name), "{name} is not in\n{once}");
        }
        assert!(
            tidegate.access().iter().all(|line| line.backend().is_some_and(|name| name.starts_with("db@127.0.1.")))
        );
    }
}

#[test]
fn ip_hash_over_a_host_name_is_sticky() {
    let four = Four::with_dead(2);
    let tidegate = four.start("ip_hash");
    tidegate.wait_for_down(&four.name(2));
    (1..=4).filter(|&host| host != 2).for_each(|host| tidegate.wait_for_up(&four.name(host)));
    let first = reached(&tidegate);
    assert!((0..CONNECTIONS).all(|_| reached(&tidegate) == first));
    eventually(DEADLINE, "one access line for each", || tidegate.access().len() > CONNECTIONS);
}
