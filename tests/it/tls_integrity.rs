//! What one side sent, the other receives, through TLS too; and its ends are told apart as those of plain connections are.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::thread;

use rustls::{AlertDescription, Error};

use crate::support::backend::Backend;
use crate::support::client::{End, expect, read_to_end, reset};
use crate::support::data::{Sum, Summing, receive, send, send_in};
use crate::support::tidegate::Tidegate;
use crate::support::tls::{Authority, Terminated, Tls, one_tls_connection, one_tls_connection_of, read_all, terminate};

const MIB: u64 = 1 << 20;

#[test]
fn bulk_each_way_at_the_same_time_arrives_unchanged() {
    let Terminated { client, backend, tidegate } = one_tls_connection("");
    let (up, down) = thread::scope(|scope| {
        let sent_up = scope.spawn(|| {
            let sum = send(&mut &client, 31, 64 * MIB).unwrap();
            client.close_notify().unwrap();
            sum
        });
        let sent_down = scope.spawn(|| {
            let sum = send(&mut &backend, 32, 64 * MIB).unwrap();
            backend.shutdown(Shutdown::Write).unwrap();
            sum
        });
        let got_up = scope.spawn(|| receive(&mut &backend).unwrap());
        let got_down = receive(&mut &client).unwrap();
        ((sent_up.join().unwrap(), got_up.join().unwrap()), (sent_down.join().unwrap(), got_down))
    });
    assert_eq!(up.0, up.1, "client to backend");
    assert_eq!(down.0, down.1, "backend to client");
    assert_eq!((up.1.bytes, down.1.bytes), (64 * MIB, 64 * MIB));
    assert_eq!(tidegate.only_access().bytes(), (64 * MIB, 64 * MIB));
}

/// Records of many sizes, written and received in pieces that have nothing to do with them.
#[test]
fn writes_of_many_sizes() {
    for old in [false, true] {
        let client = if old { Authority::old_client } else { Authority::client };
        let Terminated { tidegate: _tidegate, client, backend } = one_tls_connection_of("", client);
        let mixed = |to: &mut dyn Write, seed| -> Sum {
            let mut to = to;
            send_in(&mut to, seed, 16 * MIB, |rng| match rng.u8(..4) {
                0 => rng.usize(1..100),
                1 => rng.usize(16_000..17_000),
                2 => rng.usize(60_000..70_000),
                _ => rng.usize(1..200_000),
            })
            .unwrap()
        };
        thread::scope(|scope| {
            let sent_up = scope.spawn(|| {
                let sum = mixed(&mut &client, 33);
                client.close_notify().unwrap();
                sum
            });
            let got_up = scope.spawn(|| receive(&mut &backend).unwrap());
            // No FIN: in TLS 1.2 whoever gets a close_notify is done (RFC 5246, 7.2.1).
            let sent_down = scope.spawn(|| mixed(&mut &backend, 34));
            let mut got_down = Summing::default();
            let (mut left, mut buffer) = (16 * MIB, vec![0; 7_777]);
            while left > 0 {
                let count = (&client).read(&mut buffer).unwrap();
                assert!(count > 0, "{left} bytes are missing");
                got_down.add(&buffer[..count]);
                left -= count as u64;
            }
            eprintln!("old {old}");
            assert_eq!(got_down.sum(), sent_down.join().unwrap(), "backend to client, old: {old}");
            assert_eq!(got_up.join().unwrap(), sent_up.join().unwrap(), "client to backend, old: {old}");
        });
    }
}

#[test]
fn single_bytes_both_ways() {
    let (authority, backend) = (Authority::new(), Backend::echo());
    let certificate = authority.issue(&["a.example"]);
    let tidegate = Tidegate::start(&terminate(backend.place(), &[&certificate], "", ""));
    let client = Tls::connect(&tidegate.at("in"), &authority.client(), "a.example");
    for round in 0..500_u32 {
        let byte = [u8::try_from(round % 251).unwrap()];
        (&client).write_all(&byte).unwrap();
        let mut answer = [0];
        (&client).read_exact(&mut answer).unwrap();
        assert_eq!(answer, byte, "round {round}");
    }
}

/// Alone, without a FIN: a close_notify says that the client has finished.
#[test]
fn a_clients_close_notify_is_fin_and_the_answer_still_comes() {
    let Terminated { tidegate, client, mut backend } = one_tls_connection("");
    (&client).write_all(b"question").unwrap();
    client.close_notify().unwrap();
    assert_eq!(read_to_end(&mut backend), (b"question".to_vec(), End::Fin));
    thread::scope(|scope| {
        let sent = scope.spawn(|| {
            let sum = send(&mut &backend, 35, 50 * MIB).unwrap();
            backend.shutdown(Shutdown::Write).unwrap();
            sum
        });
        // Up to a close_notify, or it would be an error.
        assert_eq!(receive(&mut &client).unwrap(), sent.join().unwrap());
    });
    let line = tidegate.only_access();
    assert_eq!((line.end().as_str(), line.bytes()), ("client closed", (8, 50 * MIB)));
}

#[test]
fn a_backends_fin_is_close_notify_and_the_client_may_still_send() {
    let Terminated { tidegate, client, mut backend } = one_tls_connection("");
    backend.write_all(b"question").unwrap();
    backend.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&client), "question");
    thread::scope(|scope| {
        let sent = scope.spawn(|| {
            let sum = send(&mut &client, 36, 50 * MIB).unwrap();
            client.finish();
            sum
        });
        assert_eq!(receive(&mut &backend).unwrap(), sent.join().unwrap());
    });
    let line = tidegate.only_access();
    assert_eq!((line.end().as_str(), line.bytes()), ("backend closed", (50 * MIB, 8)));
}

/// What came before it is delivered, and the line says that there may have been more.
#[test]
fn a_bare_fin_is_recorded_as_a_truncation() {
    let Terminated { tidegate, client, mut backend } = one_tls_connection("");
    (&client).write_all(b"half of it").unwrap();
    client.socket().shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&mut backend), (b"half of it".to_vec(), End::Fin));
    backend.write_all(b"thanks").unwrap();
    backend.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&client), "thanks");
    let line = tidegate.only_access();
    assert_eq!(line.end(), "client closed without close_notify");
    assert_eq!(line.field("side"), "client");
}

/// A FIN amid a record is one too; the piece of the record is nothing that could be delivered.
#[test]
fn a_fin_amid_a_record() {
    let Terminated { tidegate, client, mut backend } = one_tls_connection("");
    let record = client.seal(b"never whole");
    client.socket().write_all(&record[..record.len() - 1]).unwrap();
    client.socket().shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&mut backend).0, b"");
    drop(backend);
    assert_eq!(tidegate.only_access().end(), "client closed without close_notify");
}

#[test]
fn a_clients_reset_is_the_backends() {
    let Terminated { tidegate, client, mut backend } = one_tls_connection("");
    (&client).write_all(b"x").unwrap();
    expect(&mut backend, b"x");
    reset(client.into_socket());
    assert_eq!(read_to_end(&mut backend).1, End::Reset);
    assert_eq!(tidegate.only_access().end(), "client reset");
}

#[test]
fn a_backends_reset_is_the_clients() {
    let Terminated { tidegate, client, backend } = one_tls_connection("");
    reset(backend);
    let error = (&client).read(&mut [0]).expect_err("no close_notify");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(tidegate.only_access().end(), "backend reset");
}

/// Whoever has changed it, the backend must not take what it got for all there was.
#[test]
fn a_record_that_was_changed_on_its_way() {
    let Terminated { tidegate, client, mut backend } = one_tls_connection("");
    (&client).write_all(b"good").unwrap();
    expect(&mut backend, b"good");
    let mut record = client.seal(b"bad");
    *record.last_mut().unwrap() ^= 1;
    client.socket().write_all(&record).unwrap();
    let error = (&client).read(&mut [0]).expect_err("an alert");
    let alert = error.get_ref().and_then(|error| error.downcast_ref::<Error>());
    assert_eq!(alert, Some(&Error::AlertReceived(AlertDescription::BadRecordMac)), "{error}");
    assert_eq!(read_to_end(&mut backend), (Vec::new(), End::Reset));
    let line = tidegate.only_access();
    assert_eq!(line.end(), "client TLS protocol error");
    assert_eq!(line.bytes().0, 4);
}
