//! Log lines that cannot be written are counted.

use crate::support::backend::Backend;
use crate::support::client::{connect, read_to_end};
use crate::support::stats::{ADMIN, get};
use crate::support::tidegate::Tidegate;
use crate::support::{DEADLINE, eventually};

#[test]
fn access_log_on_a_full_disk_is_counted_and_named() {
    let backend = Backend::named("a");
    let tidegate = Tidegate::with(&format!(
        "{ADMIN}listeners: [{{ name: in, bind: 127.0.0.1:0, pool: p }}]\n\
         pools: [{{ name: p, backends: [{{ address: \"{}\" }}] }}]\n",
        backend.address()
    ))
    .log("{ format: json, access: /dev/full }")
    .start();
    let lines = |name: &str| {
        let text = get(&tidegate.stats_port(), "/metrics").text();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in\n{text}")).parse::<u64>().unwrap()
    };
    let errors = "tidegate_log_write_errors_total{log=\"access\"}";
    assert_eq!(lines(errors), 0);
    assert!(tidegate.view().logs.iter().all(|log| log.error.is_none()));

    (0..3).for_each(|_| assert_eq!(read_to_end(&mut connect(&tidegate.at("in"))).0, b"a"));
    eventually(DEADLINE, "three lines are lost", || lines(errors) == 3);
    assert_eq!(lines("tidegate_log_write_errors_total{log=\"process\"}"), 0);
    assert_eq!(lines("tidegate_log_dropped_lines_total{log=\"access\"}"), 0);
    let view = tidegate.view();
    let access = view.logs.iter().find(|log| log.name == "access").expect("the access log");
    assert_eq!((access.write_errors, access.dropped_lines), (3, 0));
    assert!(access.error.as_deref().is_some_and(|error| error.starts_with("No space left on device")), "{access:?}");
    assert!(access.failing_since.is_some_and(|since| since >= view.started && since <= view.time), "{access:?}");
}
