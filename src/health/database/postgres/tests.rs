use proptest::prelude::*;

use super::super::testing::{account, dialogue, pieces, survive};
use super::*;
use crate::config::model::RequiredRole;

const NONCE: &str = "rOprNGfwEbeRWgbNEkqO";

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_message(&mut bytes, kind, &[body]);
    bytes
}

fn authentication(code: u32, data: &[u8]) -> Vec<u8> {
    message(b'R', &[&code.to_be_bytes(), data].concat())
}

fn failed(code: &str) -> Vec<u8> {
    message(b'E', format!("SFATAL\0VFATAL\0C{code}\0Mwords\0\0").as_bytes())
}

fn ready() -> Vec<u8> {
    message(b'Z', b"I")
}

fn standby(value: &str) -> Vec<u8> {
    message(b'S', format!("in_hot_standby\0{value}\0").as_bytes())
}

fn row(columns: &[Option<&str>]) -> Vec<u8> {
    let mut body = (columns.len() as u16).to_be_bytes().to_vec();
    for column in columns {
        let length = column.map_or(-1, |column| column.len() as i32);
        body.extend_from_slice(&length.to_be_bytes());
        body.extend_from_slice(column.unwrap_or_default().as_bytes());
    }
    message(b'D', &body)
}

/// What the client sends after its first message, and the outcome.
fn check(account: &CheckAccount, role: RequiredRole, is_private: bool, answers: &[&[u8]]) -> (Vec<Vec<u8>>, String) {
    let mut key = DerivedKey::default();
    let mut client =
        PostgresClient::new(account, "db", Questions::of_role(role), is_private, NONCE.to_owned(), &mut key);
    let (mut sent, outcome) = dialogue(&mut client, answers);
    sent.remove(0);
    let outcome = match outcome {
        Ok(DialogueStep::Done(Observation { role, position, .. })) => {
            format!("{} {}", role.map_or("-", ServerRole::name), position.unwrap_or_default())
        }
        Ok(DialogueStep::More) => "more".to_owned(),
        Ok(DialogueStep::StartTls) => "TLS".to_owned(),
        Err(reason) => reason,
    };
    (sent, outcome)
}

#[test]
fn startup_names_the_account() {
    let (account, mut key) = (account("health.postgres"), DerivedKey::default());
    let mut client = PostgresClient::new(&account, "db", Questions::default(), false, NONCE.to_owned(), &mut key);
    assert_eq!(client.begin(), b"\0\0\0\x3a\0\x03\0\0user\0check\0database\0db\0application_name\0tidegate\0\0");
}

#[test]
fn timeline_of_a_primary_is_in_the_third_column() {
    let account = account("health.postgres");
    let questions = Questions { timeline: true, ..Questions::of_role(RequiredRole::Primary) };
    for (columns, timeline) in [
        ([Some("f"), Some("0/3000060"), Some("0000000B")], Ok(Some(11))),
        ([Some("t"), Some("0/3000060"), None], Ok(None)),
        ([Some("f"), Some("0/3000060"), Some("x")], Err("sends a malformed message")),
    ] {
        let mut key = DerivedKey::default();
        let mut client = PostgresClient::new(&account, "db", questions, false, NONCE.to_owned(), &mut key);
        let answers = [authentication(0, b""), standby("off"), ready(), row(&columns), ready()];
        let (_, outcome) = dialogue(&mut client, &answers.each_ref().map(Vec::as_slice));
        let seen = outcome.map(|step| match step {
            DialogueStep::Done(seen) => seen.timeline,
            step => panic!("{step:?}"),
        });
        assert_eq!(seen, timeline.map_err(str::to_owned));
    }
}

#[test]
fn role_comes_from_the_parameter_or_from_a_query() {
    let account = account("health.postgres");
    let ok = authentication(0, b"");
    let (t, f) = (row(&[Some("t")]), row(&[Some("f")]));
    for (role, answers, queries, outcome) in [
        (RequiredRole::Any, vec![&ok, &ready()], vec![], "- 0"),
        (RequiredRole::Any, vec![&ok, &standby("on"), &ready()], vec![], "replica 0"),
        (RequiredRole::Primary, vec![&ok, &standby("off"), &ready()], vec![], "primary 0"),
        (RequiredRole::Primary, vec![&ok, &standby("on"), &ready()], vec![], "replica 0"),
        (RequiredRole::Primary, vec![&ok, &ready(), &t, &ready()], vec![QUERY_ROLE], "replica 0"),
        (RequiredRole::Primary, vec![&ok, &ready(), &f, &ready()], vec![QUERY_ROLE], "primary 0"),
        (
            RequiredRole::Replica,
            vec![&ok, &standby("on"), &ready(), &row(&[Some("t"), Some("1/A")]), &ready()],
            vec![QUERY_POSITION],
            "replica 4294967306",
        ),
        (
            RequiredRole::Replica,
            vec![&ok, &ready(), &row(&[Some("t"), None]), &message(b'C', b"SELECT 1\0"), &ready()],
            vec![QUERY_POSITION],
            "replica 0",
        ),
        (
            RequiredRole::Replica,
            vec![&ok, &ready(), &row(&[Some("t"), Some("x")])],
            vec![QUERY_POSITION],
            "sends a malformed message",
        ),
        (RequiredRole::Primary, vec![&ok, &ready(), &failed("57014")], vec![QUERY_ROLE], "query failed: words (57014)"),
    ] {
        let whole: Vec<&[u8]> = answers.iter().map(|answer| answer.as_slice()).collect();
        let (sent, told) = check(&account, role, false, &whole);
        assert_eq!(told, outcome, "{role:?}");
        let expected: Vec<Vec<u8>> =
            queries.iter().map(|query| message(b'Q', format!("{query}\0").as_bytes())).collect();
        assert_eq!(sent.into_iter().filter(|sent| !sent.is_empty()).collect::<Vec<_>>(), expected);
        // In single bytes, and all at once.
        let bytes = whole.concat();
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(check(&account, role, false, &single).1, outcome);
        assert_eq!(check(&account, role, false, &[&bytes]).1, outcome);
    }
}

#[test]
fn errors_are_told_apart() {
    let with = account("health.postgres");
    let without = CheckAccount { section: "health.postgres", user: None, password: None, file: None };
    let see = "see health.postgres (user `check`, password from /etc/pw)";
    for (code, outcome, without_user) in [
        ("57P03", "unfit: starting: words (57P03)".to_owned(), "unfit: starting: words (57P03)"),
        ("53300", "full: too many connections: words (53300)".to_owned(), "full: too many connections: words (53300)"),
        ("28P01", format!("refuses the password: words (28P01): {see}"), "- 0"),
        ("28000", format!("refuses the login: words (28000): {see}"), "- 0"),
        ("3D000", format!("has no database `db`: words (3D000): {see}"), "- 0"),
        ("57P01", "refuses the session: words (57P01)".to_owned(), "refuses the session: words (57P01)"),
    ] {
        let answer = failed(code);
        assert_eq!(check(&with, RequiredRole::Any, false, &[&answer]).1, outcome);
        assert_eq!(check(&without, RequiredRole::Any, false, &[&answer]).1, without_user);
    }
    assert_eq!(check(&without, RequiredRole::Any, false, &[&authentication(10, b"SCRAM-SHA-256\0\0")]).1, "- 0");
}

#[test]
fn methods_of_authentication() {
    let with = account("health.postgres");
    let none = CheckAccount { password: None, file: None, ..account("health.postgres") };
    let clear = authentication(3, b"");
    let (sent, told) = check(&with, RequiredRole::Any, true, &[&clear]);
    assert_eq!((sent, told.as_str()), (vec![message(b'p', b"pencil\0")], "more"));
    for (account, is_private, answer, expected) in [
        (
            &with,
            false,
            clear.clone(),
            "asks for the password in clear text, which is sent over TLS only: set pools[].tls",
        ),
        (&none, true, clear, "asks for a password: see health.postgres (user `check`, no password_file)"),
        (&none, true, authentication(10, b"SCRAM-SHA-256\0\0"), "asks for a password: see"),
        (&with, true, authentication(5, b"salt"), "stores the password as an MD5 hash, which is not supported"),
        (&with, true, authentication(10, b"SCRAM-SHA-512\0\0"), "offers no authentication method that is supported"),
        (&with, true, authentication(7, b""), "asks for Kerberos or SSPI"),
        (&with, true, authentication(12, b"v=x"), "sends an unexpected authentication message 12"),
        (&with, true, authentication(99, b""), "sends an unexpected authentication message 99"),
        (&with, true, message(b'R', b"\0"), "sends a malformed message"),
    ] {
        let (sent, told) = check(account, RequiredRole::Any, is_private, &[&answer]);
        assert!(told.starts_with(expected), "{told}");
        assert_eq!(sent.concat(), b"", "nothing of the password");
    }
}

/// The exchange of RFC 7677 with PostgreSQL's empty user name.
#[test]
fn scram_needs_the_servers_signature() {
    let account = account("health.postgres");
    let (mut twin, mut key) = (Scram::new(NONCE.to_owned()), DerivedKey::default());
    let server_first: &[u8] = b"r=rOprNGfwEbeRWgbNEkqOxyz,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    let proof = twin.last(server_first, b"pencil", &mut key).unwrap();
    let offer = authentication(10, b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0");
    let (first, last) = (authentication(11, server_first), authentication(12, b"v=AAAA"));
    let (sent, told) = check(&account, RequiredRole::Any, false, &[&offer, &first, &last]);
    assert_eq!(sent[0], message(b'p', b"SCRAM-SHA-256\0\0\0\0\x1cn,,n=,r=rOprNGfwEbeRWgbNEkqO"));
    assert_eq!(sent[1], message(b'p', &proof));
    assert!(told.starts_with("cannot prove to know the password"), "{told}");
    // Neither is a login accepted in the middle of it.
    for answers in [vec![&offer, &authentication(0, b"")], vec![&offer, &first, &authentication(0, b"")]] {
        let answers: Vec<&[u8]> = answers.iter().map(|it| it.as_slice()).collect();
        let (_, told) = check(&account, RequiredRole::Any, false, &answers);
        assert_eq!(told, "sends an unexpected authentication message 0");
    }
}

#[test]
fn other_servers_are_named_as_such() {
    let account = account("health.postgres");
    for (answer, expected) in [
        (
            &b"HTTP/1.1 400 Bad Request\r\n"[..],
            "answer is not PostgreSQL's: begins with \"HTTP/1.1 400 Bad Request\\r\\n\"",
        ),
        (b"\x4a\0\0\0", "sends"),
        (b"-ERR", "answer is not PostgreSQL's: begins with \"-ERR\""),
        (b"R\0\0\0\0", "answer is not PostgreSQL's"),
        (b"R\xff\0\0\0", "answer is not PostgreSQL's"),
        (b"W\0\0\0\x04", "sends an unexpected message `W`"),
    ] {
        let told = check(&account, RequiredRole::Any, false, &[answer]).1;
        assert!(told.starts_with(expected) || told == "more", "{answer:?}: {told}");
    }
    let notices = message(b'N', &[b'x'; 60_000]);
    let told = check(&account, RequiredRole::Any, false, &[&notices, &notices, &notices, &notices, &notices]).1;
    assert_eq!(told, "sends more than 256 KiB in answer to a health check");
}

proptest! {
    #[test]
    fn arbitrary_answers_never_panic(pieces in pieces(), role in 0..3, kinds in prop::collection::vec(0..8_usize, 0..20)) {
        let role = [RequiredRole::Any, RequiredRole::Primary, RequiredRole::Replica][role as usize];
        let (account, mut key) = (account("health.postgres"), DerivedKey::default());
        survive(&mut PostgresClient::new(&account, "db", Questions::of_role(role), true, NONCE.to_owned(), &mut key), &pieces);
        // Whole messages of every kind get further.
        let messages: Vec<Vec<u8>> = kinds
            .iter()
            .zip(pieces.iter().cycle())
            .map(|(kind, body)| message(b"RSEZDNTC"[*kind], body))
            .collect();
        survive(&mut PostgresClient::new(&account, "db", Questions::of_role(role), true, NONCE.to_owned(), &mut key), &messages);
    }
}
