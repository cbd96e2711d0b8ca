use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeySize, OAEP_SHA1_MGF1SHA1, OaepPrivateDecryptingKey, PrivateDecryptingKey};
use base64ct::{Base64, Encoding};
use proptest::prelude::*;

use super::super::testing::{account, dialogue, pieces, reason, survive};
use super::*;
use crate::config::model::RequiredRole;
use crate::stats::database::ServerRole;

const SCRAMBLE: &[u8; 20] = b"abcdefghijklmnopqrst";
const OTHER_SCRAMBLE: &[u8; 20] = b"ABCDEFGHIJKLMNOPQRST";
const OK: &[u8] = &[0, 0, 0, 2, 0, 0, 0];

/// A greeting by a version, with a default method, and TLS or not.
fn greeting(method: &str, tls: bool) -> Vec<u8> {
    let [low_1, low_2, high_1, high_2] = (0x0008_f207_u32 | if tls { 0x800 } else { 0 }).to_le_bytes();
    let mut body = b"\x0a8.0.40\0\x01\0\0\0".to_vec();
    body.extend_from_slice(&SCRAMBLE[..8]);
    body.extend_from_slice(&[0, low_1, low_2, 45, 2, 0, high_1, high_2, 21]);
    body.extend_from_slice(&[0; 10]);
    body.extend_from_slice(&SCRAMBLE[8..]);
    body.push(0);
    body.extend_from_slice(method.as_bytes());
    body.push(0);
    packet(0, &body)
}

fn failed(code: u16, message: &str) -> Vec<u8> {
    let mut body = vec![0xff];
    body.extend_from_slice(&code.to_le_bytes());
    body.extend_from_slice(format!("#HY000{message}").as_bytes());
    packet(2, &body)
}

fn switch(method: &str) -> Vec<u8> {
    packet(2, &[&[0xfe], method.as_bytes(), b"\0", OTHER_SCRAMBLE, b"\0"].concat())
}

fn string(text: Option<&str>) -> Vec<u8> {
    match text {
        None => vec![0xfb],
        Some(text) if text.len() < 251 => [&[text.len() as u8], text.as_bytes()].concat(),
        Some(text) => [&[0xfc], &(text.len() as u16).to_le_bytes()[..], text.as_bytes()].concat(),
    }
}

/// A result set.
fn rows(columns: &[&str], rows: &[&[Option<&str>]]) -> Vec<u8> {
    let end = [0xfe, 0, 0, 2, 0];
    let mut bodies = vec![vec![columns.len() as u8]];
    for name in columns {
        let definition = ["def", "s", "t", "o", name, name].map(|text| string(Some(text))).concat();
        bodies.push([definition, vec![0x0c, 45, 0, 0, 1, 0, 0, 0xfd, 0, 0, 0, 0, 0]].concat());
    }
    bodies.push(end.to_vec());
    bodies.extend(rows.iter().map(|row| row.iter().flat_map(|value| string(*value)).collect()));
    bodies.push(end.to_vec());
    bodies.iter().zip(1..).flat_map(|(body, sequence)| packet(sequence, body)).collect()
}

fn pairs(values: &[(&str, &str)]) -> Vec<u8> {
    let rows_of: Vec<[Option<&str>; 2]> = values.iter().map(|(name, value)| [Some(*name), Some(*value)]).collect();
    let slices: Vec<&[Option<&str>]> = rows_of.iter().map(|row| &row[..]).collect();
    rows(&["Variable_name", "Value"], &slices)
}

/// What the client sends after nothing, and the outcome.
fn check(account: &CheckAccount, role: RequiredRole, is_private: bool, answers: &[&[u8]]) -> (Vec<Vec<u8>>, String) {
    let (mut sent, outcome) =
        dialogue(&mut MysqlClient::new(account, Questions::of_role(role), false, is_private), answers);
    assert_eq!(sent.remove(0), b"", "the server speaks first");
    (sent, told(outcome))
}

fn told(outcome: Result<DialogueStep, String>) -> String {
    match outcome {
        Ok(DialogueStep::Done(Observation { role, delay, read_only, fault, .. })) => {
            let fault = fault.or(read_only);
            let (role, delay) = (role.map_or("-", ServerRole::name), delay.map(|delay| format!(" {delay:?}")));
            [role.to_owned(), delay.unwrap_or_default(), fault.map(|fault| format!(" {fault}")).unwrap_or_default()]
                .concat()
        }
        Ok(DialogueStep::More) => "more".to_owned(),
        Ok(DialogueStep::StartTls) => "TLS".to_owned(),
        Err(reason) => reason,
    }
}

fn sha1(parts: &[&[u8]]) -> Vec<u8> {
    digest(&SHA1_FOR_LEGACY_USE_ONLY, &parts.concat()).as_ref().to_vec()
}

fn sha256(parts: &[&[u8]]) -> Vec<u8> {
    digest(&SHA256, &parts.concat()).as_ref().to_vec()
}

fn xor(one: &[u8], other: &[u8]) -> Vec<u8> {
    one.iter().zip(other).map(|(one, other)| one ^ other).collect()
}

/// As the server verifies it: it has the hash of the hash.
fn proves_natively(response: &[u8], scramble: &[u8]) -> bool {
    let stored = sha1(&[&sha1(&[b"pencil"])]);
    sha1(&[&xor(response, &sha1(&[scramble, &stored]))]) == stored
}

fn proves_by_sha256(response: &[u8], scramble: &[u8]) -> bool {
    let stored = sha256(&[&sha256(&[b"pencil"])]);
    sha256(&[&xor(response, &sha256(&[&stored, scramble]))]) == stored
}

/// User, response and method of a login.
fn login(bytes: &[u8]) -> (u8, Vec<u8>, Vec<u8>, Vec<u8>) {
    let rest = &bytes[4 + 32..];
    let (user, rest) = crate::mysql::packet::text(rest).unwrap();
    let (response, method) = rest[1..].split_at(usize::from(rest[0]));
    (bytes[3], user.to_vec(), response.to_vec(), method.to_vec())
}

#[test]
fn login_by_the_servers_method() {
    let account = account("health.mysql");
    let (sent, told) =
        check(&account, RequiredRole::Any, false, &[&greeting("mysql_native_password", false), &packet(2, OK)]);
    let (sequence, user, response, method) = login(&sent[0]);
    assert_eq!((sequence, &*user, &*method), (1, &b"check"[..], &b"mysql_native_password\0"[..]));
    assert!(proves_natively(&response, SCRAMBLE));
    assert_eq!(u32::from_le_bytes(sent[0][4..8].try_into().unwrap()), 0x0008_8200, "no TLS, no DEPRECATE_EOF");
    assert_eq!(told, "-");

    let fast = packet(2, &[1, 3]);
    let (sent, told) =
        check(&account, RequiredRole::Any, false, &[&greeting("caching_sha2_password", false), &fast, &packet(3, OK)]);
    let (_, _, response, method) = login(&sent[0]);
    assert_eq!(method, b"caching_sha2_password\0");
    assert!(proves_by_sha256(&response, SCRAMBLE));
    assert_eq!((sent[1].as_slice(), told.as_str()), (&b""[..], "-"));
    // MariaDB's parsec or ed25519 as the default: the account may have another.
    let (sent, _) = check(&account, RequiredRole::Any, false, &[&greeting("client_ed25519", false)]);
    assert_eq!(login(&sent[0]).3, b"mysql_native_password\0");
}

#[test]
fn switched_method_takes_the_new_scramble() {
    let account = account("health.mysql");
    for (default, switched, proves) in [
        ("caching_sha2_password", "mysql_native_password", proves_natively as fn(&[u8], &[u8]) -> bool),
        ("mysql_native_password", "caching_sha2_password", proves_by_sha256),
    ] {
        let answers: [&[u8]; 3] = [&greeting(default, false), &switch(switched), &packet(4, OK)];
        let (sent, told) = check(&account, RequiredRole::Any, false, &answers);
        assert_eq!(sent[1][3], 3, "sequence");
        assert!(proves(&sent[1][4..], OTHER_SCRAMBLE), "{switched}");
        assert_eq!(told, "-");
    }
    for (method, is_private, expected) in [
        (
            "client_ed25519",
            true,
            "asks for the authentication method client_ed25519, which is not supported: see health.mysql",
        ),
        (
            "mysql_clear_password",
            false,
            "asks for the password in clear text (mysql_clear_password), which is sent over TLS only",
        ),
        (
            "sha256_password",
            false,
            "asks for the password in clear text (sha256_password), which is sent over TLS only",
        ),
    ] {
        let answers: [&[u8]; 2] = [&greeting("mysql_native_password", false), &switch(method)];
        let (sent, told) = check(&account, RequiredRole::Any, is_private, &answers);
        assert!(told.starts_with(expected) && sent[1].is_empty(), "{told}");
    }
    let answers: [&[u8]; 2] = [&greeting("mysql_native_password", false), &switch("mysql_clear_password")];
    assert_eq!(check(&account, RequiredRole::Any, true, &answers).0[1], packet(3, b"pencil\0"));
}

#[test]
fn full_authentication_in_private_is_the_password() {
    let account = account("health.mysql");
    let full = packet(2, &[1, 4]);
    let answers: [&[u8]; 3] = [&greeting("caching_sha2_password", false), &full, &packet(4, OK)];
    let (sent, told) = check(&account, RequiredRole::Any, true, &answers);
    assert_eq!((sent[1].clone(), told.as_str()), (packet(3, b"pencil\0"), "-"));
}

#[test]
fn full_authentication_in_public_is_encrypted() {
    let account = account("health.mysql");
    let key = PrivateDecryptingKey::generate(KeySize::Rsa2048).unwrap();
    let der: PublicKeyX509Der<'_> = key.public_key().as_der().unwrap();
    let text = Base64::encode_string(der.as_ref());
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    let pem = format!("\x01-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"));
    let (full, pem, ok) = (packet(2, &[1, 4]), packet(4, pem.as_bytes()), packet(6, OK));
    let hello = greeting("caching_sha2_password", false);
    let (sent, told) = check(&account, RequiredRole::Any, false, &[&hello, &full, &pem, &ok]);
    assert_eq!(sent[1], packet(3, &[2]), "asks for the key");
    assert_eq!((sent[2][3], told.as_str()), (5, "-"));
    let key = OaepPrivateDecryptingKey::new(key).unwrap();
    let mut hidden = vec![0; key.min_output_size()];
    let hidden = key.decrypt(&OAEP_SHA1_MGF1SHA1, &sent[2][4..], &mut hidden, None).unwrap().to_vec();
    assert_eq!(xor(&hidden, SCRAMBLE), b"pencil\0");
    for broken in [&b"\x01"[..], b"\x01-----BEGIN PUBLIC KEY-----\nAAAA\n", b"\x01\xff"] {
        let told = check(&account, RequiredRole::Any, false, &[&hello, &full, &packet(4, broken)]).1;
        assert_eq!(told, "sends an RSA key that cannot be used");
    }
}

#[test]
fn tls_comes_after_the_greeting() {
    let account = account("health.mysql");
    let mut client = MysqlClient::new(&account, Questions::default(), true, false);
    let mut answer = Vec::new();
    let step = client.take(&greeting("caching_sha2_password", true), &mut answer);
    assert_eq!(step.map_err(reason), Ok(DialogueStep::StartTls));
    assert_eq!((answer.len(), answer[3]), (36, 1));
    assert_eq!(u32::from_le_bytes(answer[4..8].try_into().unwrap()) & 0x800, 0x800);
    assert_eq!(client.farewell(), b"");
    answer.clear();
    assert_eq!(client.take(b"", &mut answer).map_err(reason), Ok(DialogueStep::More));
    assert_eq!((login(&answer).0, login(&answer).1), (2, b"check".to_vec()));
    answer.clear();
    client.take(&packet(3, &[1, 4]), &mut answer).map_err(reason).unwrap();
    assert_eq!(answer, packet(4, b"pencil\0"), "TLS is private");

    let mut plain = MysqlClient::new(&account, Questions::default(), true, false);
    let refused = plain.take(&greeting("caching_sha2_password", false), &mut Vec::new()).unwrap_err();
    assert_eq!(reason(refused), "refuses TLS (have_ssl is not YES)");
    // What an attacker has put behind the greeting is no answer within TLS.
    let mut injected = MysqlClient::new(&account, Questions::default(), true, false);
    let both = [greeting("caching_sha2_password", true), packet(2, OK)].concat();
    assert_eq!(reason(injected.take(&both, &mut Vec::new()).unwrap_err()), "sends a malformed packet");
}

#[test]
fn errors_are_told_apart() {
    let with = account("health.mysql");
    let without = CheckAccount { section: "health.mysql", user: None, password: None, file: None };
    let see = "see health.mysql (user `check`, password from /etc/pw)";
    for (code, outcome, without_user) in [
        (1040, "full: too many connections: x (1040)".to_owned(), "full: too many connections: x (1040)"),
        (1203, "full: too many connections: x (1203)".to_owned(), "full: too many connections: x (1203)"),
        (1129, "blocks this host: x (1129); unblock it by FLUSH HOSTS".to_owned(), "blocks this host: x (1129)"),
        (
            1130,
            format!("allows no account from this host: x (1130): {see}"),
            "allows no account from this host: x (1130)",
        ),
        (1045, format!("refuses the password: x (1045): {see}"), "-"),
        (1698, format!("refuses the password: x (1698): {see}"), "-"),
        (3159, format!("requires TLS, set pools[].tls: x (3159): {see}"), "requires TLS"),
        (3118, format!("refuses the login: x (3118): {see}"), "refuses the login"),
        (1053, "unfit: stops: x (1053)".to_owned(), "unfit: stops"),
        (9999, "refuses the connection: x (9999)".to_owned(), "refuses the connection: x (9999)"),
    ] {
        let (hello, error) = (greeting("mysql_native_password", false), failed(code, "x"));
        let told = check(&with, RequiredRole::Any, false, &[&hello, &error]).1;
        assert!(told.starts_with(&outcome), "{told}");
        let told = check(&without, RequiredRole::Any, false, &[&hello, &error]).1;
        assert!(told.starts_with(without_user), "{told}");
    }
    // Before the greeting there is no SQLSTATE.
    let early = packet(0, b"\xff\x10\x04Too many connections");
    let told = check(&with, RequiredRole::Any, false, &[&early]).1;
    assert_eq!(told, "full: too many connections: Too many connections (1040)");
    for other in [&b"HTTP/1.1 400 Bad Request\r\n"[..], b"\x05\0\0\0hello", b"\0\0\0\0"] {
        let told = check(&with, RequiredRole::Any, false, &[other]).1;
        assert!(told.starts_with("answer is not MySQL's: begins with "), "{told}");
    }
}

#[test]
fn roles_are_asked_for() {
    let account = account("health.mysql");
    let asked = |role, answers: &[Vec<u8>]| {
        let (hello, ok) = (greeting("mysql_native_password", false), packet(2, OK));
        let mut all: Vec<&[u8]> = vec![&hello, &ok];
        all.extend(answers.iter().map(Vec::as_slice));
        let (sent, told) = check(&account, role, false, &all);
        let single: Vec<u8> = all.concat();
        let single: Vec<&[u8]> = single.chunks(1).collect();
        assert_eq!(check(&account, role, false, &single).1, told, "in single bytes");
        let queries = sent.iter().skip(1).filter(|sent| !sent.is_empty());
        let queries: Vec<String> = queries.map(|sent| String::from_utf8_lossy(&sent[5..]).into_owned()).collect();
        (queries, told)
    };
    let status = |behind: Option<&str>, error: &str| {
        let columns = ["Replica_IO_State", "Last_SQL_Error", "Last_IO_Error", "Seconds_Behind_Source"];
        rows(&columns, &[&[Some("Waiting"), Some(""), Some(error), behind]])
    };
    for (role, answers, told) in [
        (RequiredRole::Primary, vec![pairs(&[("read_only", "OFF"), ("innodb_read_only", "0")])], "primary"),
        (RequiredRole::Primary, vec![pairs(&[("read_only", "ON")])], "replica is read-only (read_only = ON)"),
        (
            RequiredRole::Primary,
            vec![pairs(&[("read_only", "OFF"), ("super_read_only", "ON")])],
            "replica is read-only (super_read_only = ON)",
        ),
        (RequiredRole::Primary, vec![pairs(&[("read_only", "NO_LOCK")])], "replica is read-only (read_only = NO_LOCK)"),
        (RequiredRole::Replica, vec![status(Some("7"), "")], "replica 7s"),
        (RequiredRole::Replica, vec![status(None, "")], "replica replica whose replication does not run"),
        (
            RequiredRole::Replica,
            vec![status(None, "no route")],
            "replica replica whose replication does not run: no route",
        ),
        (RequiredRole::Replica, vec![rows(&["Seconds_Behind_Source"], &[])], "primary"),
        (
            RequiredRole::Replica,
            vec![rows(&["Seconds_Behind_Source"], &[&[Some("3")], &[Some("9")], &[Some("1")]])],
            "replica 9s",
        ),
        (
            RequiredRole::Replica,
            vec![failed(1064, "syntax"), rows(&["Seconds_Behind_Master"], &[&[Some("0")]])],
            "replica 0ns",
        ),
        (
            RequiredRole::Replica,
            vec![failed(1227, "denied")],
            "permission denied: denied (1227): see health.mysql (user `check`, password from /etc/pw)",
        ),
        (
            RequiredRole::Synced,
            vec![pairs(&[("wsrep_local_state", "4"), ("wsrep_ready", "ON"), ("wsrep_cluster_status", "Primary")])],
            "synced",
        ),
        (
            RequiredRole::Synced,
            vec![pairs(&[("wsrep_local_state", "2"), ("wsrep_ready", "ON"), ("wsrep_cluster_status", "Primary")])],
            "- is a donor (wsrep_local_state = 2)",
        ),
        (
            RequiredRole::Synced,
            vec![pairs(&[("wsrep_local_state", "4"), ("wsrep_ready", "OFF"), ("wsrep_cluster_status", "non-Primary")])],
            "- is not part of the primary component (wsrep_cluster_status = non-Primary)",
        ),
        (
            RequiredRole::Primary,
            vec![failed(1047, "not ready")],
            "is not part of the primary component: not ready (1047)",
        ),
        (
            RequiredRole::PreferReplica,
            vec![pairs(&[("read_only", "ON")]), status(Some("7"), "")],
            "replica 7s is read-only (read_only = ON)",
        ),
        (
            RequiredRole::PreferReplica,
            vec![pairs(&[("read_only", "OFF")]), rows(&["Seconds_Behind_Source"], &[])],
            "primary",
        ),
        (
            RequiredRole::PreferReplica,
            vec![pairs(&[("read_only", "ON")]), rows(&["Seconds_Behind_Source"], &[])],
            "replica is read-only (read_only = ON) and follows no primary",
        ),
        (
            RequiredRole::PreferReplica,
            vec![pairs(&[("read_only", "OFF")]), status(None, "")],
            "replica replica whose replication does not run",
        ),
    ] {
        assert_eq!(asked(role, &answers).1, told);
    }
    let (queries, _) = asked(RequiredRole::Replica, &[failed(1064, "syntax")]);
    assert_eq!(queries, ["SHOW REPLICA STATUS", "SHOW SLAVE STATUS"]);
    let group = |state: &str, members: &str, reachable: &str| {
        let columns = ["state", "role", "members", "reachable"];
        vec![pairs(&[]), rows(&columns, &[&[Some(state), Some("PRIMARY"), Some(members), Some(reachable)]])]
    };
    for (answers, told) in [
        (group("ONLINE", "3", "2"), "synced"),
        (group("ONLINE", "3", "1"), "- reaches 1 of 3 members of its group, which is no majority"),
        (group("ONLINE", "4", "2"), "- reaches 2 of 4 members of its group, which is no majority"),
        (group("RECOVERING", "3", "3"), "- is not online in its group (MEMBER_STATE = RECOVERING)"),
        (vec![pairs(&[]), rows(&["state"], &[])], "- is no member of a group"),
    ] {
        let (queries, outcome) = asked(RequiredRole::Synced, &answers);
        assert_eq!(outcome, told);
        assert_eq!(queries.len(), 2);
    }
}

#[test]
fn session_is_ended_by_quit() {
    let account = account("health.mysql");
    let mut client = MysqlClient::new(&account, Questions::default(), false, false);
    dialogue(&mut client, &[&greeting("mysql_native_password", false), &packet(2, OK)]).1.unwrap();
    assert_eq!(client.farewell(), b"\x01\0\0\0\x01");
}

proptest! {
    #[test]
    fn arbitrary_packets_never_panic(pieces in pieces(), wanted in 0..4_usize, tls: bool, logged_in: bool) {
        let role = [RequiredRole::Any, RequiredRole::Primary, RequiredRole::Replica, RequiredRole::Synced][wanted];
        let account = account("health.mysql");
        survive(&mut MysqlClient::new(&account, Questions::of_role(role), tls, false), &pieces);
        let mut messages = vec![greeting("caching_sha2_password", true)];
        if logged_in {
            messages.push(packet(2, OK));
        }
        messages.extend(pieces.iter().filter(|body| !body.is_empty()).map(|body| packet(1, body)));
        survive(&mut MysqlClient::new(&account, Questions::of_role(role), tls, true), &messages);
    }
}
