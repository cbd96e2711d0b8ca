use proptest::prelude::*;

use super::wire::PROTOCOL;
use crate::sniff::queries::testing::{Dialogue, WatchedDialogue, cuts, seen_in_pieces, seen_whole};
use crate::stats::termination::Side;

fn message(kind: u8, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    [&[kind], &(body.len() as u32 + 4).to_be_bytes()[..], body].concat()
}

fn startup(parameters: &str) -> Vec<u8> {
    let length = parameters.len() as u32 + 9;
    [&length.to_be_bytes()[..], &[0, 3, 0, 0], parameters.as_bytes(), &[0]].concat()
}

fn query(text: &str) -> Vec<u8> {
    message(b'Q', format!("{text}\0"))
}

fn parse(name: &str, text: &str) -> Vec<u8> {
    message(b'P', format!("{name}\0{text}\0\0\0"))
}

fn bind(portal: &str, statement: &str) -> Vec<u8> {
    message(b'B', format!("{portal}\0{statement}\0\0\0\0\0\0\0"))
}

fn execute(portal: &str) -> Vec<u8> {
    message(b'E', format!("{portal}\0\0\0\0\0"))
}

fn sync() -> Vec<u8> {
    message(b'S', "")
}

fn complete() -> Vec<u8> {
    message(b'C', "TAG 1\0")
}

fn ready() -> Vec<u8> {
    message(b'Z', "I")
}

fn error(code: &str) -> Vec<u8> {
    message(b'E', format!("SFEHLER\0VERROR\0C{code}\0MC is for cookie\0\0"))
}

fn rows(count: usize) -> Vec<u8> {
    let row = message(b'D', b"\0\x01\0\0\0\x05E\0\0\0\x05");
    [message(b'T', b"\0\x01C\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"), row.repeat(count)].concat()
}

fn parts(parts: &[Vec<u8>]) -> Vec<u8> {
    parts.concat()
}

fn logged_in() -> WatchedDialogue {
    let mut watched = WatchedDialogue::new(PROTOCOL);
    watched.client(startup("user\0alice\0database\0shop\0application_name\0psql\0"));
    watched.server(message(b'R', [0, 0, 0, 10])).client(message(b'p', "SCRAM")).server(message(b'R', [0; 4]));
    watched.server(parts(&[message(b'S', "a\0b\0"), message(b'K', [0; 8]), ready()]));
    watched.saw(&["user alice", "database shop"]);
    watched
}

#[test]
fn times_are_from_the_end_of_the_query_to_the_end_of_its_answer() {
    let mut watched = logged_in();
    watched.timed = true;
    let select = query("select 1");
    let (begin, end) = select.split_at(9);
    watched.client(begin).client(end).server(message(b'N', "notice")).server(rows(1)).server(complete()).saw(&[]);
    watched.server(ready()).saw(&["SELECT 2/4"]);
    // Each Execute to its own CommandComplete.
    watched.client(parts(&[parse("", "insert into t"), bind("", ""), execute(""), bind("", ""), execute(""), sync()]));
    watched.server(parts(&[message(b'1', ""), message(b'2', "")])).server(complete()).saw(&["INSERT 1/2"]);
    watched.server(message(b'2', "")).server(complete()).saw(&["INSERT pipelined 3/4"]);
    watched.server(ready()).saw(&[]);
}

#[test]
fn simple_queries_end_when_the_server_is_ready() {
    let mut watched = logged_in();
    watched.client(query("begin; select 1; commit")).server(parts(&[complete(), rows(2), complete(), complete()]));
    watched.saw(&[]).server(ready()).saw(&["BEGIN"]);
    watched.client(query("selec 1")).server(parts(&[error("42601"), ready()])).saw(&["error 42", "other failed"]);
    watched.client(query("")).server(parts(&[message(b'I', ""), ready()])).saw(&["other"]);
    watched.client(message(b'F', [0; 10])).server(parts(&[message(b'V', [0; 4]), ready()])).saw(&["other"]);
    // Two at once.
    watched.client(parts(&[query("select 1"), query("update t")]));
    watched.server(parts(&[rows(1), complete(), ready(), complete(), ready()]));
    watched.saw(&["SELECT", "UPDATE pipelined"]);
}

#[test]
fn prepared_statements_and_portals_keep_their_first_word() {
    let mut watched = logged_in();
    watched.client(parts(&[parse("s1", "/* x */ update t"), message(b'D', "Ss1\0"), sync()]));
    watched.server(parts(&[message(b'1', ""), message(b't', [0; 2]), message(b'n', ""), ready()])).saw(&[]);
    watched.client(parts(&[bind("", "s1"), execute(""), bind("c1", "s1"), execute("c1"), bind("", "s2"), execute("")]));
    watched.client(sync());
    let answers = [message(b'2', ""), complete(), message(b'2', ""), message(b's', ""), message(b'2', ""), complete()];
    watched.server(parts(&answers)).server(ready()).saw(&["UPDATE", "UPDATE pipelined", "other pipelined"]);
    watched.client(parts(&[message(b'C', "Ss1\0"), bind("", "s1"), execute(""), sync()]));
    watched.server(parts(&[message(b'3', ""), message(b'2', ""), complete(), ready()])).saw(&["other"]);
}

#[test]
fn error_in_a_pipeline_skips_what_follows_to_the_sync() {
    let one = |text| parts(&[parse("", text), bind("", ""), execute("")]);
    let mut watched = logged_in();
    watched.client(parts(&[one("select 1"), one("insert"), one("update"), sync(), one("delete"), sync()]));
    watched.server(parts(&[message(b'1', ""), message(b'2', ""), complete(), message(b'1', ""), error("23505")]));
    watched.saw(&["SELECT", "error 23", "INSERT failed pipelined", "unanswered"]);
    watched.server(parts(&[ready(), message(b'1', ""), message(b'2', ""), complete(), ready()]));
    watched.saw(&["DELETE pipelined"]);
    // The Sync comes later, and others before it.
    watched.client(parts(&[one("select 1"), message(b'H', "")])).server(error("22012"));
    watched.saw(&["error 22", "SELECT failed"]).client(one("update")).saw(&["unanswered"]);
    watched.client(parts(&[sync(), one("insert"), sync()])).server(parts(&[ready(), complete(), ready()]));
    watched.saw(&["INSERT"]);
    // Of a Parse alone.
    watched.client(parts(&[parse("x", "selec"), sync()])).server(parts(&[error("42601"), ready()])).saw(&["error 42"]);
    watched.client(query("select 1")).server(parts(&[rows(0), complete(), ready()])).saw(&["SELECT"]);
}

#[test]
fn copies_are_queries_and_their_data_is_passed_by() {
    let data = || message(b'd', "Q\0\0\0\x05x\n");
    let copy_in = || message(b'G', [0; 3]);
    let mut watched = logged_in();
    watched.client(query("copy t from stdin")).server(copy_in()).client(data().repeat(3)).client(message(b'c', ""));
    watched.server(parts(&[complete(), ready()])).saw(&["COPY"]);
    watched.client(query("copy t to stdout"));
    watched.server(parts(&[message(b'H', [0; 3]), data().repeat(9), message(b'c', ""), complete(), ready()]));
    watched.saw(&["COPY"]);
    // By an extended query, whose Sync is read within the copy and ignored.
    watched.client(parts(&[parse("", "copy t from stdin"), bind("", ""), execute(""), sync()]));
    watched.server(parts(&[message(b'1', ""), message(b'2', ""), copy_in()])).client(data());
    watched.client(parts(&[sync(), message(b'c', ""), sync()])).server(parts(&[complete(), ready()])).saw(&["COPY"]);
    // It fails while the client sends.
    watched.client(query("copy t from stdin")).server(copy_in()).client(data());
    watched.server(parts(&[error("22P04"), ready()])).client(parts(&[data(), message(b'c', "")]));
    watched.saw(&["error 22", "COPY failed"]);
    watched.client(parts(&[parse("", "select 1"), bind("", ""), execute(""), sync()]));
    watched.server(parts(&[complete(), ready()])).saw(&["SELECT"]);
}

#[test]
fn first_messages_are_told_apart() {
    let begin = || WatchedDialogue::new(PROTOCOL);
    let ssl = [0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f];
    let gss = [0, 0, 0, 8, 4, 0xd2, 0x16, 0x30];
    begin().client(ssl).server("S").saw(&["opaque: encrypted"]);
    begin()
        .client(gss)
        .server("N")
        .client(ssl)
        .server("N")
        .client(startup("user\0bob\0"))
        .saw(&["user bob", "database bob"]);
    begin().client([0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc]).saw(&["opaque: encrypted"]);
    begin().client([0, 0, 0, 16, 4, 0xd2, 0x16, 0x2e, 0, 0, 0, 1, 0, 0, 0, 2]).end().saw(&[]);
    begin().client(startup("user\0r\0replication\0true\0")).saw(&["opaque: replication"]);
    begin().client(startup("user\0r\0replication\0off\0")).saw(&["user r", "database r"]);
    for wrong in [&b"GET / HTTP/1.1\r\n"[..], b"\0\0\0\x08\0\x02\0\0", &[0, 0, 0, 8, 0, 3, 0, 0], &[ssl, ssl].concat()]
    {
        begin().client(wrong).saw(&["opaque: malformed"]);
    }
    let long = format!("user\0{}\0application_name\0{}\0", "u".repeat(100), "a".repeat(2000));
    let mut watched = begin();
    watched.client(startup(&long)).saw(&[&format!("user {}", "u".repeat(64)), &format!("database {}", "u".repeat(64))]);
    watched.server(parts(&[message(b'R', [0; 4]), ready()])).client(query("select 1"));
    watched.server(parts(&[complete(), ready()])).saw(&["SELECT"]);
    // Refused at the login.
    begin().client(startup("user\0u\0")).server(error("28P01")).end().saw(&["user u", "database u", "error 28"]);
}

#[test]
fn what_cannot_be_followed_is_opaque() {
    let mut watched = logged_in();
    watched
        .client(query("START_REPLICATION"))
        .server(message(b'W', [0; 3]))
        .saw(&["opaque: replication", "unanswered"]);
    for (of_client, bytes) in
        [(true, message(b'?', "")), (true, vec![b'Q', 0, 0, 0, 3]), (false, vec![b'D', 0x80, 0, 0, 0])]
    {
        let mut watched = logged_in();
        if of_client {
            watched.client(bytes)
        } else {
            watched.server(bytes)
        };
        watched.saw(&["opaque: malformed"]);
        assert_eq!(watched.watcher.skippable(Side::Backend), u64::MAX);
    }
    let mut watched = logged_in();
    watched.client(query("select 1").repeat(crate::sniff::queries::MAX_OUTSTANDING_QUERIES)).saw(&[]);
    watched.client(query("select 1"));
    assert_eq!(watched.seen.len(), crate::sniff::queries::MAX_OUTSTANDING_QUERIES + 1);
    assert_eq!(watched.seen[0], "opaque: pipelined");
    // The server closes by itself, in a query and without.
    logged_in().server(error("57P01")).end().saw(&["error 57"]);
    logged_in().client(query("select 1")).server(error("57P01")).end().saw(&["error 57", "unanswered"]);
}

#[test]
fn long_messages_need_not_be_seen() {
    let mut watched = logged_in();
    let insert = query(&format!("insert into t values ('{}')", "x".repeat(100_000)));
    watched.client(&insert[..100]);
    assert_eq!(watched.watcher.skippable(Side::Client), insert.len() as u64 - 100);
    watched.client(&insert[100..]).server(&message(b'D', vec![0; 1000])[..5]);
    assert_eq!(watched.watcher.skippable(Side::Backend), 1000);
}

fn exchange() -> impl Strategy<Value = (Dialogue, &'static [&'static str])> {
    use Side::{Backend as S, Client as C};

    let extended = |text: &str| parts(&[parse("", text), bind("", ""), execute(""), sync()]);
    let exchanges: Vec<(Dialogue, &'static [&'static str])> = vec![
        (vec![(C, query("select E")), (S, parts(&[rows(3), complete(), ready()]))], &["SELECT"]),
        (vec![(C, query("/*Q*/drop x")), (S, parts(&[error("42P01"), ready()]))], &["error 42", "DROP failed"]),
        (
            vec![
                (C, extended("-- c\nupdate")),
                (S, parts(&[message(b'1', ""), message(b'2', ""), complete(), ready()])),
            ],
            &["UPDATE"],
        ),
        (
            vec![(C, extended("insert")), (S, parts(&[message(b'1', ""), error("23505"), ready()]))],
            &["error 23", "INSERT failed"],
        ),
        (
            vec![
                (C, query("copy t from stdin")),
                (S, message(b'G', [0; 3])),
                (C, parts(&[message(b'd', "S\0\0\0\x04"), message(b'c', "")])),
                (S, parts(&[complete(), ready()])),
            ],
            &["COPY"],
        ),
        (vec![(S, parts(&[message(b'A', "E"), message(b'N', "Z"), message(b'S', "a\0b\0")]))], &[]),
    ];
    proptest::sample::select(exchanges)
}

proptest! {
    #[test]
    fn legal_dialogues_are_read_in_any_pieces(
        exchanges in proptest::collection::vec(exchange(), 0..8), cuts in cuts(), skips: bool,
    ) {
        let mut dialogue = vec![(Side::Client, startup("user\0a\0")), (Side::Backend, parts(&[message(b'R', [0; 4]), ready()]))];
        let mut expected = vec!["user a", "database a"];
        for (exchange, seen) in exchanges {
            dialogue.extend(exchange);
            expected.extend(seen);
        }
        prop_assert_eq!(seen_whole(PROTOCOL, &dialogue), expected.clone());
        prop_assert_eq!(seen_in_pieces(PROTOCOL, &dialogue, &cuts, skips), expected);
    }
}
