use super::*;

#[test]
fn each_socket_has_a_worker_and_each_worker_a_socket() {
    let own = |sockets, workers: &[usize]| {
        assignments(sockets, workers, AcceptingWorkers::Each).into_iter().collect::<Vec<_>>()
    };
    assert_eq!(own(2, &[0, 1]), [(0, 0), (1, 1)]);
    assert_eq!(own(4, &[0, 1]), [(0, 0), (1, 1), (2, 0), (3, 1)], "those of two that have retired");
    assert_eq!(own(4, &[0, 1, 5]), [(0, 0), (1, 1), (2, 5), (3, 0)]);
    let all = assignments(1, &[0, 1, 5], AcceptingWorkers::All).into_iter().collect::<Vec<_>>();
    assert_eq!(all, [(0, 0), (0, 1), (0, 5)]);
    assert_eq!(own(1, &[0, 1, 5]), [(0, 0), (0, 1), (0, 5)], "no other could join");
    assert_eq!(own(1, &[]), []);
    let one = |sockets, workers: &[usize], port| {
        assignments(sockets, workers, AcceptingWorkers::One(port)).into_iter().collect::<Vec<_>>()
    };
    assert_eq!((one(1, &[0, 1, 5], 30_000), one(1, &[0, 1, 5], 30_001)), (vec![(0, 0)], vec![(0, 1)]));
    assert_eq!(one(3, &[0, 1], 7), [(0, 1), (1, 0), (2, 1)], "those that it had before it was one of a range");
    assert_eq!(one(1, &[], 7), []);
}

#[test]
fn change_that_is_dropped_leaves_an_exclusive_address_exclusive() {
    let config = |reuse_port: bool| {
        let text = format!(
            "workers: 2\nlisteners: [{{ name: a, bind: \"127.0.0.1:0\", pool: p, socket: {{ reuse_port: {reuse_port} }} }}]\n\
             pools: [{{ name: p, backends: [{{ address: 127.0.0.1:2 }}] }}]"
        );
        crate::config::parse("test", &text, &crate::config::files::Unread).unwrap().config
    };
    let (exclusive, shared, workers) = (config(false), config(true), [0, 1]);
    let mut sockets = ListenSockets::default();
    let listener = &exclusive.listeners[0];
    let opened = sockets
        .bind(
            &[(listener, &listener.addresses().next().unwrap())],
            &exclusive,
            &workers,
            &InheritedSockets::default(),
            &exclusive,
        )
        .unwrap();
    for OpenedAddress { key, bound, duplicates } in opened {
        assert_eq!(duplicates.len(), 2, "one socket for both");
        sockets.insert(key, bound);
    }
    let is_shared = |sockets: &ListenSockets| {
        let all = sockets.0.values().flat_map(|bound| &bound.sockets);
        all.map(|socket| socket2::SockRef::from(socket).reuse_port().unwrap()).collect::<Vec<_>>()
    };
    let change = sockets.prepare(&exclusive, &shared, &workers).unwrap();
    assert_eq!((change.len(), is_shared(&sockets)), (1, vec![true]));
    drop(change);
    assert_eq!(is_shared(&sockets), [false]);
    for mut change in sockets.prepare(&exclusive, &shared, &workers).unwrap() {
        assert_eq!((change.added.len(), &*change.removed), (1, &[(0, 1)][..]));
        sockets.commit(&mut change);
    }
    assert_eq!(is_shared(&sockets), [true, true]);
    assert!(sockets.prepare(&shared, &shared, &workers).unwrap().is_empty());
}
