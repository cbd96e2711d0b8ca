//! `started` in the log says that the listeners are open, `ready` that connections get a backend.

use crate::support::backend::{Backend, Dead};
use crate::support::stats::{ADMIN, get};
use crate::support::tidegate::{Tidegate, forward};

#[test]
fn started_without_a_backend_is_not_ready_until_one_is_up() {
    let address = Dead::start().address();
    let tidegate = Tidegate::start(&format!("{ADMIN}{}", forward(address, "", "health: { tcp: {}, interval: 50ms }")));
    let not_ready = tidegate.wait_for_log("that it is not ready", |line| line.is("not ready"));
    assert_eq!(
        (not_ready.level().as_str(), &*not_ready.field("reason")),
        ("WARN", "listener in: no backend of pool p is up")
    );
    assert_eq!(tidegate.count_logs(|line| line.is("ready")), 0);
    let at = |message: &str| tidegate.logs().iter().position(|line| line.is(message)).expect("a line");
    assert!(at("listening") < at("started") && at("started") < at("not ready"));
    assert_eq!(get(&tidegate.stats_port(), "/readyz").status, 503);

    let backend = Backend::named_at(address, "b");
    tidegate.wait_for_log("that it is ready", |line| line.is("ready"));
    assert_eq!(get(&tidegate.stats_port(), "/readyz").status, 200);
    drop(backend);
    let lost = || tidegate.count_logs(|line| line.is("not ready")) == 2;
    crate::support::eventually(crate::support::DEADLINE, "it says that it is not ready any more", lost);
    assert_eq!(tidegate.count_logs(|line| line.is("started")), 1);
}

#[test]
fn started_with_a_backend_is_ready_at_once() {
    let backend = Backend::named("b");
    let tidegate = Tidegate::start(&forward(backend.address(), "", ""));
    tidegate.wait_for_log("that it is ready", |line| line.is("ready"));
    assert_eq!(tidegate.count_logs(|line| line.is("not ready")), 0);
}

#[test]
fn pool_that_is_to_refuse_does_not_keep_it_from_being_ready() {
    let backend = Backend::named("b");
    let tidegate = Tidegate::start(&format!(
        "{ADMIN}listeners:\n- {{ name: in, bind: \"127.0.0.1:0\", pool: p }}\n- {{ name: no, bind: \"127.0.0.1:0\", pool: reject }}\n\
         pools:\n- {{ name: p, backends: [{{ name: b, address: \"{}\" }}] }}\n- {{ name: reject, backends: [] }}\n",
        backend.place()
    ));
    tidegate.wait_for_log("that it is ready", |line| line.is("ready"));
    assert_eq!(get(&tidegate.stats_port(), "/readyz").status, 200);
}
