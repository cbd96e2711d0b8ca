//! What was changed at run time, over files that change as well.

use super::*;
use crate::config::{files::Unread, parse};
use crate::control::edit::{BackendValues, Edit};
use crate::control::outcome::Refusal;

fn file(pool: &str) -> Config {
    let text = format!("listeners: [{{ name: in, bind: '127.0.0.1:1', pool: p }}]\npools: [{{ name: p, {pool} }}]");
    parse("test", &text, &Unread).unwrap_or_else(|failure| panic!("{failure}")).config
}

fn ab(weight: u32) -> Config {
    file(&format!(
        "backends: [{{ name: a, address: '127.0.0.1:2', weight: {weight} }}, {{ name: b, address: '127.0.0.1:3' }}]"
    ))
}

fn patch(name: &str, values: BackendValues) -> Edit {
    Edit::PatchBackend { pool: "p".into(), name: name.into(), values }
}

fn weight(name: &str, weight: u32) -> Edit {
    patch(name, BackendValues { weight: Some(weight), ..BackendValues::default() })
}

fn put(name: &str, address: &str) -> Edit {
    let address = backend_address(address).unwrap();
    Edit::PutBackend { pool: "p".into(), name: name.into(), address, values: BackendValues::default() }
}

fn edited(file: &Config, edits: &[Edit]) -> Overlay {
    edits.iter().fold(Overlay::default(), |overlay, edit| overlay.edited(file, edit).unwrap().0)
}

fn backends(config: &Config) -> Vec<(&str, u32)> {
    config.pools[0].backends.iter().map(|backend| (&*backend.name, backend.weight)).collect()
}

#[test]
fn a_configured_value_that_has_changed_since_wins() {
    let overlay = edited(&ab(1), &[weight("a", 5), weight("b", 7)]);
    let (config, kept, dropped) = overlay.apply(&ab(1));
    assert_eq!((backends(&config), dropped.len()), (vec![("a", 5), ("b", 7)], 0));
    assert_eq!(kept, overlay);
    let (config, kept, dropped) = overlay.apply(&ab(3));
    assert_eq!(backends(&config), [("a", 3), ("b", 7)]);
    assert_eq!(
        dropped,
        ["pools.p.backends.a.weight: changed at run time from 1 to 5; the file now says 3, which is in effect"]
    );
    // What was dropped does not come back with the old value.
    assert_eq!(backends(&kept.apply(&ab(1)).0), [("a", 1), ("b", 7)]);
    let (config, _, dropped) = overlay.apply(&ab(5));
    assert_eq!((backends(&config)[0], dropped.len()), (("a", 5), 0), "the file has caught up");
}

#[test]
fn backends_come_and_go() {
    let remove = |name: &str| Edit::RemoveBackend { pool: "p".into(), name: name.into() };
    let overlay = edited(&ab(1), &[put("c", "127.0.0.1:4"), remove("a"), weight("c", 9)]);
    assert_eq!(backends(&overlay.apply(&ab(1)).0), [("b", 1), ("c", 9)]);
    // The file has another address for the removed one: it is another backend.
    let moved = file("backends: [{ name: a, address: '127.0.0.1:9' }]");
    let (config, _, dropped) = overlay.apply(&moved);
    assert_eq!(backends(&config), [("a", 1), ("c", 9)]);
    let moved = "removed at run time as 127.0.0.1:2; the file now says 127.0.0.1:9, which is in effect";
    assert_eq!(dropped, [format!("pools.p.backends.a: {moved}")]);
    // The file has the added one by now.
    let with_c =
        file("backends: [{ name: b, address: '127.0.0.1:3' }, { name: c, address: '127.0.0.1:4', weight: 2 }]");
    let (config, _, dropped) = overlay.apply(&with_c);
    assert_eq!(backends(&config), [("b", 1), ("c", 2)]);
    let now = "pools.p.backends.c: added at run time; the file has it now, and its settings are in effect";
    assert_eq!(dropped, [now]);
    let same = file("backends: [{ name: c, address: '127.0.0.1:4', weight: 9 }]");
    assert_eq!(overlay.apply(&same).2, [""; 0], "the file has caught up");
    // What is changed is gone from the file.
    let changed = edited(&ab(1), &[weight("a", 5)]);
    let gone = "pools.p.backends.a: changed at run time; the file no longer has this backend";
    assert_eq!(changed.apply(&same).2, [gone]);
    let none = edited(&ab(1), &[put("c", "127.0.0.1:4"), remove("c"), weight("a", 2), weight("a", 1)]);
    assert_eq!(none, Overlay::default());
}

#[test]
fn removed_backend_that_is_added_again_is_as_in_the_file() {
    let file = file("backends: [{ name: a, address: '127.0.0.1:2', weight: 3, max_connections: 9, backup: true }]");
    let remove = Edit::RemoveBackend { pool: "p".into(), name: "a".into() };
    assert_eq!(edited(&file, &[remove.clone(), put("a", "127.0.0.1:2")]), Overlay::default());
    let moved = edited(&file, &[remove.clone(), put("a", "127.0.0.1:7")]);
    let a = &moved.apply(&file).0.pools[0].backends[0];
    assert_eq!((a.address.to_string().as_str(), a.weight, a.backup), ("127.0.0.1:7", 3, true));
    assert_eq!((a.max_connections, moved.count()), (NonZeroU32::new(9), 1));
    // Unless it is given.
    let values = BackendValues { max_connections: Some(None), backup: Some(false), ..BackendValues::default() };
    let address = backend_address("127.0.0.1:2").unwrap();
    let given = Edit::PutBackend { pool: "p".into(), name: "a".into(), address, values };
    let overlay = edited(&file, &[remove, given]);
    let a = &overlay.apply(&file).0.pools[0].backends[0];
    assert_eq!((a.weight, a.max_connections, a.backup, overlay.count()), (3, None, false, 2));
}

#[test]
fn reset_goes_back_to_the_file() {
    let remove = Edit::RemoveBackend { pool: "p".into(), name: "b".into() };
    let balance = Edit::SetBalance { pool: "p".into(), balance: Balance::Random };
    let listener =
        Edit::PatchListener { listener: "in".into(), state: Some(ListenerState::Paused), max_connections: Some(None) };
    let edits = [weight("a", 5), remove, put("c", "127.0.0.1:4"), balance, listener];
    let overlay = edited(&ab(1), &edits);
    assert_eq!(overlay.count(), 5);
    let backend = |name: &str| ResetScope::Backend { pool: "p".into(), name: name.into() };
    let after = |scope: &ResetScope| {
        let (overlay, _) = overlay.edited(&ab(1), &Edit::Reset(scope.clone())).unwrap();
        let (config, kept, dropped) = overlay.apply(&ab(1));
        assert!(dropped.is_empty() && kept == overlay);
        let backends = backends(&config).iter().map(|(name, weight)| format!("{name} {weight}")).collect::<Vec<_>>();
        (backends.join(", "), config.pools[0].balance, config.listeners[0].state, overlay.count())
    };
    let (random, paused, ready) = (Balance::Random, ListenerState::Paused, ListenerState::Ready);
    let plain = Balance::RoundRobin;
    for (scope, backends, balance, state, left) in [
        (backend("a"), "a 1, c 1", random, paused, 4),
        (backend("b"), "a 5, b 1, c 1", random, paused, 4),
        (backend("c"), "a 5", random, paused, 4),
        (ResetScope::Pool("p".into()), "a 1, b 1", plain, paused, 1),
        (ResetScope::Listener("in".into()), "a 5, c 1", random, ready, 4),
        (ResetScope::All, "a 1, b 1", plain, ready, 0),
    ] {
        assert_eq!(after(&scope), (backends.to_owned(), balance, state, left), "{scope:?}");
    }
    for (scope, why) in [
        (backend("x"), "there is no backend `x` in pool p: there is a, b"),
        (ResetScope::Pool("q".into()), "there is no pool `q`: there is p"),
        (ResetScope::Listener("out".into()), "there is no listener `out`: there is in"),
    ] {
        let refused = overlay.edited(&ab(1), &Edit::Reset(scope)).unwrap_err();
        assert_eq!(refused, Refusal::NotFound(why.into()));
    }
}

#[test]
fn every_value_and_state_is_changed_by_itself() {
    let values = BackendValues {
        weight: None,
        max_connections: Some(NonZeroU32::new(3)),
        backup: Some(true),
        state: Some(AdminState::Drain),
        forced: Some(Some(ForcedHealth::Down)),
    };
    let listener = Edit::PatchListener {
        listener: "in".into(),
        state: Some(ListenerState::Paused),
        max_connections: Some(NonZeroU32::new(8)),
    };
    let balance = Edit::SetBalance { pool: "p".into(), balance: Balance::Random };
    let overlay = edited(&ab(1), &[patch("a", values), listener, balance, put("b", "unix:/run/b")]);
    let (config, ..) = overlay.apply(&ab(4));
    let (a, b) = (&config.pools[0].backends[0], &config.pools[0].backends[1]);
    assert_eq!((a.weight, a.max_connections, a.backup), (4, NonZeroU32::new(3), true));
    assert_eq!((a.state, a.forced), (AdminState::Drain, Some(ForcedHealth::Down)));
    assert_eq!(b.address.to_string(), "unix:/run/b");
    assert_eq!(config.pools[0].balance, Balance::Random);
    assert_eq!(config.listeners[0].state, ListenerState::Paused);
    // As in the state file, in which listeners are not kept.
    let text = serde_json::to_string(&overlay.lasting()).unwrap();
    let read: Overlay = serde_json::from_str(&text).unwrap();
    let (config, ..) = read.apply(&ab(4));
    assert_eq!((&config.pools[0].backends[0], config.listeners[0].state), (a, ListenerState::Ready));
}

#[test]
fn what_cannot_be_is_refused() {
    let refused = |edit: Edit| Overlay::default().edited(&ab(1), &edit).unwrap_err();
    assert_eq!(refused(weight("x", 1)), Refusal::NotFound("there is no backend `x` in pool p: there is a, b".into()));
    let nowhere = Edit::SetBalance { pool: "q".into(), balance: Balance::Random };
    assert_eq!(refused(nowhere), Refusal::NotFound("there is no pool `q`: there is p".into()));
    assert!(matches!(refused(put("", "127.0.0.1:4")), Refusal::Unusable(_)));
    let names = file("backends: [{ name: db, address: 'db.example:1' }]");
    let refused = |edit: Edit| Overlay::default().edited(&names, &edit).unwrap_err();
    assert!(matches!(refused(weight("db@10.0.0.1:1", 2)), Refusal::Conflict(why) if why.contains("p/db")));
}
