use proptest::prelude::*;

use super::resp::PROTOCOL;
use crate::sniff::queries::testing::{Dialogue, WatchedDialogue, cuts, seen_in_pieces, seen_whole};
use crate::stats::termination::Side;

fn begin() -> WatchedDialogue {
    WatchedDialogue::new(PROTOCOL)
}

/// A command as clients send it.
fn command(words: &str) -> Vec<u8> {
    let words: Vec<&str> = words.split(' ').collect();
    let strings = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len()));
    format!("*{}\r\n{}", words.len(), strings.collect::<String>()).into_bytes()
}

#[test]
fn replies_belong_to_commands_in_their_order() {
    let mut watched = begin();
    watched.timed = true;
    let get = command("get key");
    watched.client(&get[..7]).client(&get[7..]).server("$3\r\n").server("a").server("bc\r\n").saw(&["GET 1/3"]);
    watched.client([command("SET k v"), command("INCR n"), command("nonsense x")].concat());
    watched.server("+OK\r\n:1\r\n-ERR unknown command\r\n");
    watched.saw(&["SET 1/1", "INCR pipelined 1/1", "error ERR", "other failed pipelined 1/1"]);
    watched
        .client("PING\r\n\r\n  set  a b \r\n*0\r\n")
        .server("+PONG\r\n+OK\r\n")
        .saw(&["PING 1/1", "SET pipelined 1/1"]);
}

#[test]
fn replies_end_behind_all_that_is_in_them() {
    let mut watched = begin();
    for reply in [
        "*2\r\n*2\r\n:1\r\n$-1\r\n*0\r\n",
        "*-1\r\n",
        "$0\r\n\r\n",
        "%2\r\n+a\r\n:1\r\n+b\r\n~1\r\n#t\r\n",
        "|1\r\n+ttl\r\n:3600\r\n*1\r\n,3.14\r\n",
        "=15\r\ntxt:Some string\r\n",
        "(3492890328409238509324850943850943825024385\r\n",
        "_\r\n",
        ">2\r\n+invalidate\r\n*1\r\n$1\r\na\r\n+OK\r\n",
    ] {
        let (first, rest) = reply.split_at(reply.len() - 1);
        watched.client(command("GET a")).server(first).saw(&[]).server(rest).saw(&["GET"]);
    }
    let deep = "*1\r\n".repeat(100_000);
    watched.client(command("GET a")).server(deep).saw(&[]).server(":1\r\n").saw(&["GET"]);
    watched.client(command("EXEC")).server("*2\r\n+OK\r\n-WRONGTYPE no\r\n").saw(&["EXEC"]);
}

#[test]
fn errors_are_of_the_class_of_their_first_word() {
    let mut watched = begin();
    for (error, class) in [
        ("-WRONGTYPE Operation\r\n", "WRONGTYPE"),
        ("-MOVED 3999 127.0.0.1:6381\r\n", "MOVED"),
        ("-NOAUTH\r\n", "NOAUTH"),
        ("!21\r\nERR invalid\r\n command\r\n", "ERR"),
        ("-SOMEMODULE that says so\r\n", "other"),
    ] {
        watched.client(command("GET a")).server(error).saw(&[&format!("error {class}"), "GET failed"]);
    }
    // By itself.
    begin().server("-ERR max number of clients reached\r\n").end().saw(&["error ERR"]);
}

#[test]
fn user_and_database_are_known_once_the_server_agrees() {
    let mut watched = begin();
    watched.client(command("AUTH alice secret")).saw(&[]).server("+OK\r\n").saw(&["user alice", "AUTH"]);
    watched.client(command("AUTH secret")).server("+OK\r\n").saw(&["user default", "AUTH"]);
    watched.client(command("AUTH eve guess")).server("-WRONGPASS no\r\n").saw(&["error WRONGPASS", "AUTH failed"]);
    watched.client(command("SELECT 7")).server("+OK\r\n").saw(&["database 7", "SELECT"]);
    watched.client(command("SELECT 99")).server("-ERR range\r\n").saw(&["error ERR", "SELECT failed"]);
    watched
        .client(command("HELLO 3 AUTH bob pw SETNAME x"))
        .server("%1\r\n+proto\r\n:3\r\n")
        .saw(&["user bob", "HELLO"]);
    watched.client(command("RESET")).server("+RESET\r\n").saw(&["user default", "database 0", "RESET"]);
    watched.client("auth carol pw\r\nselect 2\r\n").server("+OK\r\n+OK\r\n");
    watched.saw(&["user carol", "AUTH", "database 2", "SELECT pipelined"]);
    assert!(!format!("{:?}", watched.watcher).contains("secret"));
}

#[test]
fn pushed_messages_answer_subscriptions_alone() {
    let mut watched = begin();
    watched.client([command("HELLO 3"), command("SUBSCRIBE a b"), command("GET k")].concat());
    watched.server("%1\r\n+proto\r\n:3\r\n>3\r\n+message\r\n+x\r\n+y\r\n").saw(&["HELLO"]);
    watched.server(">3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n").saw(&["SUBSCRIBE pipelined"]);
    watched.server(">3\r\n$9\r\nsubscribe\r\n$1\r\nb\r\n:2\r\n$1\r\nv\r\n").saw(&["GET pipelined"]);
    watched.client(command("PSUBSCRIBE x")).server("-NOPERM no\r\n").saw(&["error NOPERM", "PSUBSCRIBE failed"]);
    watched.client(command("PUNSUBSCRIBE")).server(">3\r\n+punsubscribe\r\n_\r\n:0\r\n").saw(&["PUNSUBSCRIBE"]);
    // The server speaks RESP2 after all.
    let mut watched = begin();
    watched.client([command("HELLO 3"), command("SUBSCRIBE a")].concat());
    watched.server("-NOPROTO no\r\n*3\r\n+subscribe\r\n+a\r\n:1\r\n");
    watched.saw(&["error NOPROTO", "HELLO failed", "opaque: streaming", "unanswered"]);
}

#[test]
fn what_cannot_be_followed_is_opaque() {
    for (words, reason) in [
        ("SUBSCRIBE a", "streaming"),
        ("psubscribe a", "streaming"),
        ("SSUBSCRIBE a", "streaming"),
        ("MONITOR", "streaming"),
        ("CLIENT REPLY OFF", "streaming"),
        ("PSYNC ? -1", "replication"),
        ("SYNC", "replication"),
    ] {
        let opaque = format!("opaque: {reason}");
        begin().client([command("GET a"), command(words)].concat()).saw(&[&opaque, "unanswered"]);
        begin().client(format!("{words}\r\n")).saw(&[&opaque]);
    }
    begin().client(command("CLIENT SETNAME REPLY")).server("+OK\r\n").saw(&["CLIENT"]);
    begin().client([0x16, 3, 1, 2, 0]).saw(&["opaque: encrypted"]);
    for bytes in ["*1\r\n+PING\r\n", "*x\r\n", "*1\r\n$-1\r\n", "*1\r\n$99999999999999999999\r\n"] {
        begin().client(bytes).saw(&["opaque: malformed"]);
    }
    for bytes in ["?\r\n", "+OK\r\n", "*2\r\n>1\r\n", "*9999999999999999999\r\n*9999999999999999999\r\n"] {
        begin().server(bytes).saw(&["opaque: malformed"]);
    }
    let mut watched = begin();
    watched.client("PING\r\n".repeat(crate::sniff::queries::MAX_OUTSTANDING_QUERIES)).saw(&[]);
    watched.client("PING\r\n");
    assert_eq!(watched.seen[0], "opaque: pipelined");
}

#[test]
fn long_strings_need_not_be_seen() {
    let mut watched = begin();
    watched.client("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1000000\r\nabc");
    assert_eq!(watched.watcher.skippable(Side::Client), 999_997);
    watched.server("$1000\r\n");
    assert_eq!(watched.watcher.skippable(Side::Backend), 1000);
}

fn exchange() -> impl Strategy<Value = (Dialogue, &'static [&'static str])> {
    use Side::{Backend as S, Client as C};

    let exchanges: Vec<(Dialogue, &'static [&'static str])> = vec![
        (vec![(C, command("GET *1")), (S, b"$5\r\n+OK\r\n\r\n".to_vec())], &["GET"]),
        (vec![(C, b"lrange a 0 -1\r\n".to_vec()), (S, b"*2\r\n$2\r\n\r\n\r\n$-1\r\n".to_vec())], &["LRANGE"]),
        (vec![(C, command("SET k $3")), (S, b"-OOM command not allowed\r\n".to_vec())], &["error OOM", "SET failed"]),
        (
            vec![(C, [command("INCR n"), command("PING")].concat()), (S, b":1\r\n+PONG\r\n".to_vec())],
            &["INCR", "PING pipelined"],
        ),
        (vec![(C, command("AUTH a b")), (S, b"+OK\r\n".to_vec())], &["user a", "AUTH"]),
        (vec![(C, b"AUTH a b\r\n".to_vec()), (S, b"+OK\r\n".to_vec())], &["user a", "AUTH"]),
        (vec![(S, b">2\r\n+invalidate\r\n*1\r\n$1\r\na\r\n".to_vec())], &[]),
        (vec![(C, command("HGETALL h")), (S, b"|1\r\n+a\r\n%0\r\n%1\r\n+f\r\n$1\r\nv\r\n".to_vec())], &["HGETALL"]),
    ];
    proptest::sample::select(exchanges)
}

proptest! {
    #[test]
    fn legal_dialogues_are_read_in_any_pieces(
        exchanges in proptest::collection::vec(exchange(), 0..8), cuts in cuts(), skips: bool,
    ) {
        let (mut dialogue, mut expected) = (Dialogue::new(), Vec::<&str>::new());
        for (exchange, seen) in exchanges {
            dialogue.extend(exchange);
            expected.extend(seen);
        }
        prop_assert_eq!(seen_whole(PROTOCOL, &dialogue), expected.clone());
        prop_assert_eq!(seen_in_pieces(PROTOCOL, &dialogue, &cuts, skips), expected);
    }
}
