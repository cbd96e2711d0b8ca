//! Session persistence, by real clients of several addresses.

use std::net::IpAddr;

use crate::support::backend::Backend;
use crate::support::client::{connect_from, read_to_end};
use crate::support::stats::{ADMIN_SOCKET, get};
use crate::support::tidegate::Tidegate;

fn of(tidegate: &Tidegate, client: u8) -> String {
    let mut stream = connect_from(IpAddr::from([127, 0, 1, client]), tidegate.at("in").tcp());
    String::from_utf8(read_to_end(&mut stream).0).unwrap()
}

#[test]
fn clients_keep_their_backends_over_changes() {
    let backends = ["a", "b", "c"].map(Backend::named);
    let entries: Vec<String> = backends
        .iter()
        .zip(["a", "b", "c"])
        .map(|(backend, name)| format!("{{ name: {name}, address: \"{}\" }}", backend.place()))
        .collect();
    let yaml = format!(
        "{ADMIN_SOCKET}listeners: [{{ name: in, bind: \"127.0.0.1:0\", pool: p }}]\n\
         pools: [{{ name: p, persist: {{ by: client_ip, ttl: 1h, size: 4 }}, backends: [{}] }}]\n",
        entries.join(", ")
    );
    let tidegate = Tidegate::start(&yaml);
    let first: Vec<String> = (1..=4).map(|client| of(&tidegate, client)).collect();
    assert_eq!(first, ["a", "b", "c", "a"], "in turn");
    let again = || (1..=4).map(|client| of(&tidegate, client)).collect::<Vec<_>>();
    assert_eq!([again(), again()], [first.clone(), first.clone()]);
    let patch = |backend: &str, body: &str| {
        assert_eq!(tidegate.call("PATCH", &format!("/api/pools/p/backends/{backend}"), body).status, 200);
    };
    patch("b", "{\"weight\": 100}");
    patch("a", "{\"state\": \"drain\"}");
    assert_eq!(again(), first, "a drained backend keeps those who persist");
    let why = get(&tidegate.stats_port(), "/explain?client=127.0.1.1").json()["listeners"][0]["why"].to_string();
    assert!(why.contains("the client's last backend (persist)"), "{why}");
    patch("a", "{\"state\": \"maintenance\"}");
    assert!(again().iter().all(|name| name != "a"));
    assert_eq!(tidegate.view().pools[0].persistent_clients, Some(4));
    // A fifth client takes the place of the one that was not seen for the longest time.
    of(&tidegate, 5);
    assert_eq!(tidegate.view().pools[0].persistent_clients, Some(4));
}
