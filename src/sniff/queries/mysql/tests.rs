use proptest::prelude::*;

use super::MysqlLogin;
use super::capability as can;
use super::wire::PROTOCOL;
use crate::sniff::queries::QueryWatcher;
use crate::sniff::queries::testing::{Dialogue, WatchedDialogue, cuts, seen_in_pieces, seen_whole};
use crate::stats::termination::Side;

const BASE: u64 = can::PROTOCOL_41 | can::SECURE_CONNECTION | can::AUTH_LENGTH | can::CONNECT_WITH_DB | can::MYSQL;

fn packet(sequence: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let [low, middle, high, _] = (payload.len() as u32).to_le_bytes();
    [&[low, middle, high, sequence], payload].concat()
}

fn greeting(capabilities: u64) -> Vec<u8> {
    let bytes = capabilities.to_le_bytes();
    let [a, b, c, d, e, f, g, h] = bytes;
    let parts: [&[u8]; 8] = [
        b"\x0a5.5.5-10.11.6-MariaDB\0",
        &[7, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0],
        &[a, b, 45, 2, 0, c, d, 21],
        &[0; 6],
        &[e, f, g, h],
        b"abcdefghijkl\0",
        b"mysql_native_password\0",
        b"",
    ];
    packet(0, parts.concat())
}

fn login(capabilities: u64, user: &str, database: &str) -> Vec<u8> {
    let [a, b, c, d, e, f, g, h] = capabilities.to_le_bytes();
    let head = [&[a, b, c, d, 0, 0, 0, 1, 45][..], &[0; 19], &[e, f, g, h]].concat();
    let names = format!("{user}\0\x03pwd{database}\0mysql_native_password\0");
    packet(1, [head, names.into_bytes()].concat())
}

fn ok(sequence: u8, status: u16) -> Vec<u8> {
    let [low, high] = status.to_le_bytes();
    packet(sequence, [0, 0xfc, 1, 2, 0, low, high, 0, 0])
}

fn eof(sequence: u8, status: u16) -> Vec<u8> {
    let [low, high] = status.to_le_bytes();
    packet(sequence, [0xfe, 0, 0, low, high])
}

/// As EOF looks where it is deprecated.
fn ok_at_end(sequence: u8, status: u16) -> Vec<u8> {
    let [low, high] = status.to_le_bytes();
    packet(sequence, [0xfe, 0, 0, low, high, 0, 0])
}

fn error(code: u16, state: &str) -> Vec<u8> {
    let [low, high] = code.to_le_bytes();
    packet(1, [&[0xff, low, high, b'#'][..], state.as_bytes(), b"no"].concat())
}

fn query(text: &str) -> Vec<u8> {
    packet(0, format!("\x03{text}"))
}

/// A result with two columns and rows, of which one is a null and one begins like an end.
fn rows(capabilities: u64, status: u16) -> Vec<u8> {
    let column = |sequence| packet(sequence, b"\x03def\0\0\0\x01a");
    let row = || [packet(5, [0xfb, 1, b'x']), packet(6, [1, 0xfe, 1, b'y'])].concat();
    match capabilities & can::DEPRECATE_EOF {
        0 => [packet(1, [2]), column(2), column(3), eof(4, 2), row(), eof(7, status)].concat(),
        _ => [packet(1, [2]), column(2), column(3), row(), ok_at_end(7, status)].concat(),
    }
}

fn logged_in(capabilities: u64) -> WatchedDialogue {
    let mut watched = WatchedDialogue::new(PROTOCOL);
    watched.server(greeting(capabilities)).client(login(capabilities, "alice", "shop"));
    watched.server(packet(2, b"\xfemysql_native_password\0scramble")).client(packet(3, b"answer")).server(ok(4, 2));
    watched.saw(&["user alice", "database shop"]);
    watched
}

#[test]
fn queries_are_answered_by_ok_rows_and_errors() {
    for capabilities in [BASE, BASE | can::DEPRECATE_EOF] {
        let mut watched = logged_in(capabilities);
        watched.client(query("insert into t values (1)")).server(ok(1, 2)).saw(&["INSERT"]);
        watched.client(query("/* c */ select")).server(rows(capabilities, 2)).saw(&["SELECT"]);
        watched.client(query("selec")).server(error(1064, "42000")).saw(&["error 42", "other failed"]);
        // Several results.
        watched
            .client(query("call p"))
            .server([rows(capabilities, 8), ok(9, 8), rows(capabilities, 8), ok(20, 0)].concat());
        watched.saw(&["CALL"]);
        // An error in the middle of the rows.
        let all = rows(capabilities, 2);
        let end = all.len() - if capabilities & can::DEPRECATE_EOF == 0 { 9 } else { 11 };
        watched.client(query("select")).server(&all[..end]).server(error(1317, "70100"));
        watched.saw(&["error 70", "SELECT failed"]);
        watched.client(packet(0, [0x0e])).server(ok(1, 2)).saw(&["PING"]);
        watched.client(packet(0, [0x01])).end().saw(&[]);
    }
}

#[test]
fn times_are_from_the_end_of_the_command() {
    let mut watched = logged_in(BASE);
    watched.timed = true;
    let (select, answer) = (query("select 1"), rows(BASE, 0));
    watched.client(&select[..3]).client(&select[3..]).server(&answer[..4]).server(&answer[4..]).saw(&["SELECT 1/2"]);
    watched.client([query("select 1"), query("update")].concat()).server(&answer).server(ok(1, 0));
    watched.saw(&["SELECT 1/1", "UPDATE pipelined 2/2"]);
}

#[test]
fn prepared_statements_keep_their_first_word() {
    for capabilities in [BASE, BASE | can::DEPRECATE_EOF] {
        let ends = |sequence| if capabilities & can::DEPRECATE_EOF == 0 { eof(sequence, 2) } else { Vec::new() };
        let definition = || packet(2, b"\x03def");
        let mut watched = logged_in(capabilities);
        watched.client(packet(0, b"\x16select ?"));
        let prepared = [packet(1, [0, 7, 0, 0, 0, 1, 0, 2, 0, 0, 0, 0]), definition(), definition(), ends(3)].concat();
        watched.server(prepared).saw(&[]).server([definition(), ends(5)].concat()).saw(&["PREPARE"]);
        watched.client(packet(0, b"\x17\x07\0\0\0\0\x01\0\0\0")).server(rows(capabilities, 2)).saw(&["SELECT"]);
        watched.client(packet(0, b"\x17\x08\0\0\0\0\x01\0\0\0")).server(error(1243, "HY000"));
        watched.saw(&["error HY", "other failed"]);
        // Without parameters and columns; and MariaDB's execution of what was prepared last.
        let both = [packet(0, b"\x16delete"), packet(0, b"\xfa\xff\xff\xff\xff\0\0")].concat();
        watched.client(both).server(packet(1, [0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])).server(ok(1, 2));
        watched.saw(&["PREPARE", "DELETE pipelined"]);
        // A cursor: the rows come by commands.
        let columns = match capabilities & can::DEPRECATE_EOF {
            0 => [packet(1, [1]), definition(), eof(3, 0x40)].concat(),
            _ => [packet(1, [1]), definition(), ok_at_end(3, 0x40)].concat(),
        };
        watched.client(packet(0, b"\x17\x07\0\0\0\x01\x01\0\0\0")).server(columns).saw(&["SELECT"]);
        let fetched = [packet(1, [0, 0, 1]), ok_at_end(2, 0x80)].concat();
        watched.client(packet(0, b"\x1c\x07\0\0\0\x05\0\0\0")).server(fetched).saw(&["FETCH"]);
        watched.client([packet(0, b"\x18\x07\0\0\0\0\0data"), packet(0, b"\x19\x07\0\0\0")].concat()).saw(&[]);
        watched.client(packet(0, b"\x17\x07\0\0\0\0\x01\0\0\0")).server(ok(1, 2)).saw(&["other"]);
    }
}

#[test]
fn database_and_user_change_once_the_server_agrees() {
    let mut watched = logged_in(BASE);
    watched.client(packet(0, b"\x02stock")).saw(&[]).server(ok(1, 2)).saw(&["database stock", "USE"]);
    watched.client(packet(0, b"\x02nothing")).server(error(1049, "42000")).saw(&["error 42", "USE failed"]);
    watched.client(packet(0, b"\x11bob\0\x02pwother\0")).server(packet(1, b"\xfeplugin\0")).client(packet(2, b"\x03x"));
    watched.server(packet(3, b"\x01\x03")).saw(&[]).server(ok(4, 2)).saw(&["user bob", "database other", "CHANGE"]);
}

#[test]
fn files_of_the_client_are_no_commands() {
    let mut watched = logged_in(BASE);
    watched.client(query("load data local infile 'x'")).server(packet(1, b"\xfbx"));
    watched.client([packet(2, b"\x03select 1\n"), packet(0, b"\x01"), packet(4, b"")].concat()).saw(&[]);
    watched.server(ok(5, 2)).saw(&["LOAD"]).client(query("select 1")).server(ok(1, 2)).saw(&["SELECT"]);
}

#[test]
fn particulars_of_mariadb_and_of_long_packets_are_followed() {
    let capabilities = BASE & !can::MYSQL | can::CACHE_METADATA | can::DEPRECATE_EOF;
    let mut watched = logged_in(capabilities);
    let progress = packet(1, b"\xff\xff\xff\x01\x01\x01\0\0\0\x04copy");
    watched.client(query("alter table")).server([progress, ok(2, 2)].concat()).saw(&["ALTER"]);
    // Columns that the client knows already.
    let known = [packet(1, [2, 0]), packet(2, [0, 0, 1]), ok_at_end(3, 2)].concat();
    let told = [packet(1, [1, 1]), packet(2, b"\x03def"), packet(3, [0, 0, 1]), ok_at_end(4, 2)].concat();
    watched.client(query("select")).server(known).client(query("select")).server(told).saw(&["SELECT", "SELECT"]);
    // Queries with attributes, and with more of them than are read.
    let mut watched = logged_in(BASE | can::QUERY_ATTRIBUTES);
    watched.client(packet(0, b"\x03\0\x01select 1")).server(ok(1, 2)).saw(&["SELECT"]);
    watched.client(packet(0, b"\x03\x01\x01\0\x01\xfe\0\x01aselect 1")).server(ok(1, 2)).saw(&["other"]);
    // A row of 16 MiB, whose second part begins like an end.
    let mut watched = logged_in(BASE);
    watched.client(query("select")).server([packet(1, [1]), packet(2, b"\x03def"), eof(3, 2)].concat());
    watched.server([0xff, 0xff, 0xff, 4]).server([0xfe]);
    assert_eq!(watched.watcher.skippable(Side::Backend), 0xff_fffe);
    watched.server(vec![0xfe; 0xff_fffe]).server(packet(5, [0xfe, 0, 0, 0, 0])).saw(&[]).server(eof(6, 2));
    watched.saw(&["SELECT"]);
}

#[test]
fn what_cannot_be_followed_is_opaque() {
    let begin = |client: u64, server: u64| {
        let mut watched = WatchedDialogue::new(PROTOCOL);
        watched.server(greeting(server)).client(login(client, "alice", "shop"));
        watched.seen.pop().unwrap()
    };
    assert_eq!(begin(BASE | can::COMPRESS, BASE | can::COMPRESS), "opaque: compressed");
    assert_eq!(begin(BASE | can::ZSTD, BASE | can::ZSTD), "opaque: compressed");
    assert_eq!(begin(BASE | can::OPTIONAL_METADATA, BASE | can::OPTIONAL_METADATA), "opaque: unsupported");
    assert_eq!(begin(BASE & !can::PROTOCOL_41, BASE), "opaque: unsupported");
    assert_eq!(begin(BASE | can::COMPRESS, BASE), "database shop", "the server cannot");
    let mut watched = WatchedDialogue::new(PROTOCOL);
    let asks_tls = packet(1, [&((BASE | can::SSL) as u32).to_le_bytes()[..], &[0; 28]].concat());
    watched.server(greeting(BASE | can::SSL)).client(asks_tls).saw(&["opaque: encrypted"]);
    WatchedDialogue::new(PROTOCOL).client(query("select 1")).saw(&["opaque: malformed"]);
    WatchedDialogue::new(PROTOCOL).server(packet(0, b"SSH-2.0")).saw(&["opaque: malformed"]);
    for command in [0x12, 0x1e] {
        logged_in(BASE).client(packet(0, [command])).saw(&["opaque: replication"]);
    }
    logged_in(BASE).client(packet(0, [0xfe])).saw(&["opaque: unsupported"]);
    logged_in(BASE).server(ok(1, 2)).saw(&["opaque: malformed"]);
    // It closes, and says why: before the greeting, at the login, and later.
    WatchedDialogue::new(PROTOCOL).server(packet(0, b"\xff\x10\x04Too many connections")).end().saw(&["error 08"]);
    WatchedDialogue::new(PROTOCOL).server(packet(0, b"\xff\x10\x04#08004Too many")).end().saw(&["error 08"]);
    let mut watched = WatchedDialogue::new(PROTOCOL);
    watched.server(greeting(BASE)).client(login(BASE, "eve", "")).server(error(1045, "28000")).end();
    watched.saw(&["user eve", "error 28"]);
    logged_in(BASE).server(error(1927, "70100")).end().saw(&["error 70"]);
}

#[test]
fn watch_may_begin_after_the_login() {
    let after = |client: u64, seen: &mut Vec<String>| {
        // The server's offer of TLS, and the client's request for it, were between them and tidegate.
        let (greeting, login) = (greeting(client | can::SSL), login(client | can::SSL, "alice", "shop"));
        let login = MysqlLogin::read(&greeting[4..], &login[4..]).unwrap();
        let now = std::time::Instant::now();
        QueryWatcher::after_mysql_login(login, now, &mut |event| seen.push(format!("{event:?}")))
    };
    let mut seen = Vec::new();
    let mut watcher = after(BASE, &mut seen);
    assert_eq!(seen.len(), 2, "{seen:?}");
    let now = std::time::Instant::now();
    let mut answered = 0;
    watcher.read(Side::Client, &query("select 1"), now, &mut |event| panic!("{event:?}"));
    watcher.read(Side::Backend, &rows(BASE, 2), now, &mut |_| answered += 1);
    watcher.ended(&mut |event| panic!("{event:?}"));
    assert_eq!(answered, 1);
    let mut seen = Vec::new();
    let watcher = after(BASE | can::COMPRESS, &mut seen);
    assert_eq!((seen[2].as_str(), watcher.skippable(Side::Client)), ("Opaque(Compressed)", u64::MAX));
    assert!(MysqlLogin::read(b"", b"").is_none() && MysqlLogin::read(b"\x0a", b"\x01").is_none());
}

fn exchange(capabilities: u64) -> impl Strategy<Value = (Dialogue, &'static [&'static str])> {
    use Side::{Backend as S, Client as C};

    let exchanges: Vec<(Dialogue, &'static [&'static str])> = vec![
        (vec![(C, query("select")), (S, rows(capabilities, 2))], &["SELECT"]),
        (vec![(C, query("update")), (S, ok(1, 2))], &["UPDATE"]),
        (vec![(C, query("call")), (S, [rows(capabilities, 8), ok(9, 2)].concat())], &["CALL"]),
        (vec![(C, query("# c\nx")), (S, error(1064, "42000"))], &["error 42", "other failed"]),
        (
            vec![
                (C, query("load data")),
                (S, packet(1, b"\xfbf")),
                (C, [packet(2, b"\x03drop"), packet(3, b"")].concat()),
                (S, ok(4, 2)),
            ],
            &["LOAD"],
        ),
        (
            vec![
                (C, packet(0, b"\x16insert")),
                (S, packet(1, [0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])),
                (C, packet(0, b"\x17\x09\0\0\0\0\x01\0\0\0")),
                (S, ok(1, 2)),
            ],
            &["PREPARE", "INSERT"],
        ),
        (vec![(C, packet(0, b"\x02d")), (S, ok(1, 2))], &["database d", "USE"]),
    ];
    proptest::sample::select(exchanges)
}

fn exchanges() -> impl Strategy<Value = (u64, Vec<(Dialogue, &'static [&'static str])>)> {
    prop_oneof![Just(BASE), Just(BASE | can::DEPRECATE_EOF)]
        .prop_flat_map(|capabilities| (Just(capabilities), proptest::collection::vec(exchange(capabilities), 0..8)))
}

proptest! {
    #[test]
    fn legal_dialogues_are_read_in_any_pieces((capabilities, exchanges) in exchanges(), cuts in cuts(), skips: bool) {
        let mut dialogue = vec![
            (Side::Backend, greeting(capabilities)),
            (Side::Client, login(capabilities, "a", "b")),
            (Side::Backend, ok(2, 2)),
        ];
        let mut expected = vec!["user a", "database b"];
        for (exchange, seen) in exchanges {
            dialogue.extend(exchange);
            expected.extend(seen);
        }
        prop_assert_eq!(seen_whole(PROTOCOL, &dialogue), expected.clone());
        prop_assert_eq!(seen_in_pieces(PROTOCOL, &dialogue, &cuts, skips), expected);
    }
}
