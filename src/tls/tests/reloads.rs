//! Files that change while what was made of them is in service. Time is what the tests say it is.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{CertificateError, Error, HandshakeKind};

use crate::config::model::{CertificateFiles, ClientAuth, ListenerTls, PoolTls, Verify};
use crate::tls::testing::{Authority, Folder, HandshakeFailure, Pair, handshake, pool_handshake};
use crate::tls::{Acceptor, Connector, PollTime, ReloadOutcome};

/// Later than now by so many seconds.
fn after(start: PollTime, seconds: u64) -> PollTime {
    let passed = Duration::from_secs(seconds);
    PollTime { instant: start.instant + passed, wall: start.wall + passed }
}

/// Which of these a client gets that takes any.
fn served(folder: &Folder, authority: &Authority, server: &Acceptor) -> Vec<u8> {
    let client = Connector::new("any", &folder.pool(Verify::Off, authority)).unwrap();
    let ends = handshake(&client.current(), &server.current(), "localhost").unwrap();
    ends.client.peer_certificates().unwrap()[0].to_vec()
}

fn der(pair: &Pair) -> Vec<u8> {
    CertificateDer::from_pem_slice(pair.cert.as_bytes()).unwrap().to_vec()
}

#[test]
fn a_pair_that_is_renamed_into_place_is_served() {
    let (folder, authority) = (Folder::new(), Authority::new("authority"));
    let (old, new) = (authority.issue(&["localhost"]), authority.issue(&["localhost"]));
    let server = Acceptor::new("web", &folder.listener(vec![folder.pair("a", &old)])).unwrap();
    let start = PollTime::read();
    assert_eq!(server.poll(start), ReloadOutcome::Unchanged);

    folder.replace("a.pem", &new.cert);
    assert_eq!(server.poll(start), ReloadOutcome::Settling, "its key is not there yet");
    assert_eq!(served(&folder, &authority, &server), der(&old));
    folder.replace("a.key", &new.key);
    assert_eq!(server.poll(after(start, 1)), ReloadOutcome::Replaced);
    assert_eq!(served(&folder, &authority, &server), der(&new));
    assert_eq!(server.poll(after(start, 20)), ReloadOutcome::Unchanged);
    assert_eq!((server.reload_status().replaced, server.reload_status().refused), (1, 0));
}

#[test]
fn a_link_that_is_swapped_is_served() {
    let (folder, authority) = (Folder::new(), Authority::new("authority"));
    let (old, new) = (authority.issue(&["localhost"]), authority.issue(&["localhost"]));
    for (version, pair) in [("v1", &old), ("v2", &new)] {
        fs::create_dir(folder.path(version)).unwrap();
        folder.pair(&format!("{version}/tls"), pair);
    }
    symlink("v1", folder.path("..data")).unwrap();
    symlink("..data/tls.pem", folder.path("tls.pem")).unwrap();
    symlink("..data/tls.key", folder.path("tls.key")).unwrap();
    let files = CertificateFiles { cert: folder.path("tls.pem"), key: folder.path("tls.key").into() };
    let server = Acceptor::new("web", &folder.listener(vec![files])).unwrap();

    symlink("v2", folder.path("..data_tmp")).unwrap();
    fs::rename(folder.path("..data_tmp"), folder.path("..data")).unwrap();
    assert_eq!(server.poll(PollTime::read()), ReloadOutcome::Replaced);
    assert_eq!(served(&folder, &authority, &server), der(&new));
}

#[test]
fn what_is_broken_is_never_served_and_told_once() {
    let (folder, authority) = (Folder::new(), Authority::new("authority"));
    let (old, new) = (authority.issue(&["localhost"]), authority.issue(&["localhost"]));
    let expired = authority.issue_with(&["localhost"], &KeyPair::generate().unwrap(), |params| {
        params.not_after = date_time_ymd(2025, 1, 1);
    });
    let server = Acceptor::new("web", &folder.listener(vec![folder.pair("a", &old)])).unwrap();
    let mut now = PollTime::read();
    let breaks: [(&str, &dyn Fn()); 5] = [
        ("rubbish", &|| folder.replace("a.pem", "rubbish")),
        ("cut off", &|| folder.replace("a.pem", &new.cert[..new.cert.len() / 2])),
        ("gone", &|| fs::remove_file(folder.path("a.pem")).unwrap()),
        ("another's key", &|| folder.replace_pair("a", &Pair { cert: new.cert.clone(), key: old.key.clone() })),
        ("expired", &|| folder.replace_pair("a", &expired)),
    ];
    for (count, (what, change)) in breaks.into_iter().enumerate() {
        change();
        now = after(now, 10);
        assert_eq!(server.poll(now), ReloadOutcome::Settling, "{what}");
        assert_eq!(server.poll(after(now, 1)), ReloadOutcome::Settling, "{what}");
        assert_eq!(server.reload_status().faults.len(), usize::from(count > 0), "{what}: as it was told before");
        assert_eq!(server.poll(after(now, 2)), ReloadOutcome::Refused, "{what}");
        assert_eq!(server.poll(after(now, 3)), ReloadOutcome::Unchanged, "{what}: told again");
        assert_eq!(served(&folder, &authority, &server), der(&old), "{what}");
        assert_eq!(server.reload_status().refused, count as u64 + 1, "{what}");
        let faults = &server.reload_status().faults;
        assert!(faults.len() == 1 && faults[0].contains(folder.path("a").to_str().unwrap()), "{what}: {faults:?}");
    }
    folder.replace_pair("a", &new);
    assert_eq!(server.poll(after(now, 10)), ReloadOutcome::Replaced);
    assert_eq!(served(&folder, &authority, &server), der(&new));
    assert_eq!((server.reload_status().replaced, server.reload_status().refused), (1, 5));
    assert_eq!(server.reload_status().faults, [""; 0]);

    folder.replace("a.pem", "rubbish");
    assert_eq!(server.poll(after(now, 20)), ReloadOutcome::Settling);
    assert_eq!(server.poll(after(now, 22)), ReloadOutcome::Refused);
    folder.replace_pair("a", &new);
    assert_eq!(server.poll(after(now, 30)), ReloadOutcome::Unchanged);
    assert_eq!(server.reload_status().faults, [""; 0], "the files hold what is in service again");
}

/// One that has ended must not keep all others from starting; but it is no news that is worth a replacement.
#[test]
fn what_is_not_valid_now_is_served_from_the_start_and_replaces_nothing() {
    let (folder, authority) = (Folder::new(), Authority::new("authority"));
    let issue = |change: &dyn Fn(&mut CertificateParams)| {
        authority.issue_with(&["localhost"], &KeyPair::generate().unwrap(), change)
    };
    let expired = || issue(&|params| params.not_after = date_time_ymd(2025, 1, 1));
    let early = || issue(&|params| params.not_before = date_time_ymd(3000, 1, 1));
    for (first, second, name) in [(expired(), early(), "expired"), (early(), expired(), "early")] {
        let server = Acceptor::new("web", &folder.listener(vec![folder.pair(name, &first)])).unwrap();
        let start = PollTime::read();
        assert_eq!(served(&folder, &authority, &server), der(&first), "{name}");
        assert_eq!(server.poll(start), ReloadOutcome::Unchanged, "{name}");
        for other in [&expired(), &second] {
            folder.replace_pair(name, other);
            assert_eq!(server.poll(start), ReloadOutcome::Settling, "{name}");
            assert_eq!(server.poll(after(start, 2)), ReloadOutcome::Refused, "{name}");
            assert_eq!(served(&folder, &authority, &server), der(&first), "{name}");
        }
        let valid = authority.issue(&["localhost"]);
        folder.replace_pair(name, &valid);
        assert_eq!(server.poll(after(start, 3)), ReloadOutcome::Replaced, "{name}");
        assert_eq!(served(&folder, &authority, &server), der(&valid), "{name}");
    }
}

#[test]
fn what_was_refused_and_is_as_before_is_no_news() {
    let (folder, authority) = (Folder::new(), Authority::new("authority"));
    let pair = authority.issue(&["localhost"]);
    let server = Acceptor::new("web", &folder.listener(vec![folder.pair("a", &pair)])).unwrap();
    let start = PollTime::read();
    folder.replace("a.pem", "rubbish");
    assert_eq!(server.poll(start), ReloadOutcome::Settling);
    folder.replace("a.pem", &pair.cert);
    assert_eq!(server.poll(after(start, 3)), ReloadOutcome::Unchanged);
    assert_eq!((server.reload_status().replaced, server.reload_status().refused), (0, 0));
}

#[test]
fn a_certificate_that_was_too_early_is_served_when_its_time_has_come() {
    let (folder, authority) = (Folder::new(), Authority::new("authority"));
    let server =
        Acceptor::new("web", &folder.listener(vec![folder.pair("a", &authority.issue(&["localhost"]))])).unwrap();
    let start = PollTime::read();
    let early = authority.issue_with(&["localhost"], &KeyPair::generate().unwrap(), |params| {
        params.not_before = (start.wall + Duration::from_secs(3600)).into();
    });
    folder.replace_pair("a", &early);
    assert_eq!(server.poll(start), ReloadOutcome::Settling);
    assert_eq!(server.poll(after(start, 5)), ReloadOutcome::Refused);
    assert_eq!(server.poll(after(start, 3599)), ReloadOutcome::Unchanged);
    assert_eq!(server.poll(after(start, 3601)), ReloadOutcome::Replaced);
}

#[test]
fn a_file_that_is_written_in_place_is_seen_also_with_its_time_put_back() {
    let (folder, authority) = (Folder::new(), Authority::new("authority"));
    let pair = authority.issue(&["localhost"]);
    let server = Acceptor::new("web", &folder.listener(vec![folder.pair("a", &pair)])).unwrap();
    let times = |name: &str| fs::metadata(folder.path(name)).unwrap().modified().unwrap();
    let before = times("a.pem");
    let file = fs::OpenOptions::new().write(true).open(folder.path("a.pem")).unwrap();
    std::io::Write::write_all(&mut &file, pair.cert.replace('A', "B").as_bytes()).unwrap();
    file.set_modified(before).unwrap();
    assert_eq!(server.poll(PollTime::read()), ReloadOutcome::Settling);
}

#[test]
fn one_bad_certificate_does_not_keep_back_another() {
    let (folder, authority) = (Folder::new(), Authority::new("authority"));
    let files = ["one.org", "two.org"].map(|name| folder.pair(name, &authority.issue(&[name])));
    let server = Acceptor::new("web", &folder.listener(files.to_vec())).unwrap();
    let start = PollTime::read();
    folder.replace("one.org.pem", "rubbish");
    folder.replace_pair("two.org", &authority.issue(&["three.org"]));
    assert_eq!(server.poll(start), ReloadOutcome::Settling);
    assert!(server.knows(Some("one.org")) && server.knows(Some("three.org")) && !server.knows(Some("two.org")));
    assert_eq!(server.poll(after(start, 2)), ReloadOutcome::Refused);
}

/// Tickets say that a client was verified: they end with the authorities by which it was, and not before.
#[test]
fn tickets_outlive_a_certificate_and_not_the_authorities() {
    let (folder, authority) = (Folder::new(), Authority::new("authority"));
    let clients = Authority::new("clients");
    let mut auth = folder.client_auth(&clients, true);
    auth.crl = Some(folder.write("clients.crl", clients.revoke(&[], 2040)));
    let pair = folder.pair("a", &authority.issue(&["localhost"]));
    let listener = ListenerTls { client_auth: Some(ClientAuth::Verify(auth)), ..folder.listener(vec![pair]) };
    let server = Acceptor::new("web", &listener).unwrap();
    let own = folder.pair("client", &clients.issue_client(7));
    let pool = PoolTls { client_certificate: Some(own), ..folder.pool(Verify::Full, &authority) };
    let client = Connector::new("web", &pool).unwrap();
    let kind = || {
        let ends = pool_handshake(&client, &server.current(), "localhost")?;
        Ok(ends.server.handshake_kind().unwrap())
    };
    let start = PollTime::read();
    assert_ne!(kind(), Ok(HandshakeKind::Resumed));
    assert_eq!(kind(), Ok(HandshakeKind::Resumed));

    folder.replace_pair("a", &authority.issue(&["localhost"]));
    assert_eq!(server.poll(start), ReloadOutcome::Replaced);
    assert_eq!(kind(), Ok(HandshakeKind::Resumed), "only the certificate has changed");

    folder.replace("clients.crl", clients.revoke(&[7], 2040));
    assert_eq!(server.poll(after(start, 1)), ReloadOutcome::Replaced);
    assert_eq!(kind(), Err(HandshakeFailure::Server(Error::InvalidCertificate(CertificateError::Revoked))));

    folder.replace("clients.crl", clients.revoke(&[], 2040));
    assert_eq!(server.poll(after(start, 2)), ReloadOutcome::Replaced);
    assert_ne!(kind(), Ok(HandshakeKind::Resumed));
    assert_eq!(kind(), Ok(HandshakeKind::Resumed));
    folder.replace("clients.pem", format!("{}{}", clients.pem(), Authority::new("more").pem()));
    assert_eq!(server.poll(after(start, 3)), ReloadOutcome::Replaced);
    assert_ne!(kind(), Ok(HandshakeKind::Resumed), "the authorities have changed");
}

#[test]
fn a_pool_follows_its_authorities_and_its_own_certificate() {
    let (folder, old, new) = (Folder::new(), Authority::new("old"), Authority::new("new"));
    let own = folder.pair("client", &old.issue_client(1));
    let pool = PoolTls { client_certificate: Some(own), ..folder.pool(Verify::Full, &old) };
    let client = Connector::new("db", &pool).unwrap();
    let mut listener = folder.listener(vec![folder.pair("a", &new.issue(&["localhost"]))]);
    listener.client_auth = Some(ClientAuth::Verify(folder.client_auth(&new, true)));
    let server = Acceptor::new("web", &listener).unwrap();
    let meet = || handshake(&client.current(), &server.current(), "localhost").map(|_| ());
    let start = PollTime::read();
    assert!(matches!(
        meet(),
        Err(HandshakeFailure::Client(Error::InvalidCertificate(CertificateError::UnknownIssuer)))
    ));

    folder.replace("servers.pem", "rubbish");
    assert_eq!(client.poll(start), ReloadOutcome::Settling);
    assert_eq!(client.poll(after(start, 2)), ReloadOutcome::Refused);
    folder.replace("servers.pem", new.pem());
    assert_eq!(client.poll(after(start, 3)), ReloadOutcome::Replaced);
    assert!(matches!(meet(), Err(HandshakeFailure::Server(Error::InvalidCertificate(_)))), "{:?}", meet());
    folder.replace_pair("client", &new.issue_client(1));
    assert_eq!(client.poll(after(start, 4)), ReloadOutcome::Replaced);
    assert_eq!(meet(), Ok(()));
    assert_eq!((client.reload_status().replaced, client.reload_status().refused), (2, 1));
    assert_eq!((client.reload_status().facts[0].names.len(), &client.reload_status().faults[..]), (1, &[][..]));
}
