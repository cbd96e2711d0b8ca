//! A client of the protocol of Redis and Valkey (RESP 2), as far as AUTH, PING and ROLE. Pure.
//!
//! PING tells whether the server serves, ROLE its role. Where an ACL forbids ROLE, INFO says the same.

#![forbid(unsafe_code)]

use super::client::{AnswerBuffer, CheckAccount, DatabaseClient, DialogueStep, printable};
use crate::health::failure::{ProbeFailure, quoted};
use crate::health::observation::{Observation, Questions};
use crate::stats::database::ServerRole;

/// Bytes of the longest line. Errors and numbers have fewer.
const MAX_LINE: usize = 4096;

/// Values within one another. ROLE has two levels.
const MAX_DEPTH: usize = 4;

/// One check.
pub(super) struct RedisClient<'a> {
    account: &'a CheckAccount,
    questions: Questions,
    buffer: AnswerBuffer,
    reply: PartialReply,
    asked: RedisCommand,
}

/// The command whose reply comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RedisCommand {
    Auth,
    Ping,
    Role,
    Info,
}

/// One value of a reply: arrays are followed by their members.
#[derive(Debug, PartialEq, Eq)]
enum RespValue {
    Text(Vec<u8>),
    Error(Vec<u8>),
    Integer(i64),
    Array,
    Null,
}

/// The values of a reply so far.
#[derive(Default)]
struct PartialReply {
    values: Vec<RespValue>,
    /// Members that are still to come, of each open array.
    open: Vec<usize>,
    /// Bytes of a string whose length was read, with its line end.
    string: Option<usize>,
}

impl<'a> RedisClient<'a> {
    pub(super) fn new(account: &'a CheckAccount, questions: Questions) -> RedisClient<'a> {
        let asked = if account.password.is_some() { RedisCommand::Auth } else { RedisCommand::Ping };
        RedisClient { account, questions, buffer: AnswerBuffer::default(), reply: PartialReply::default(), asked }
    }

    /// Handles one reply; `Some` ends the check.
    fn reply(&mut self, values: &[RespValue], answer: &mut Vec<u8>) -> Result<Option<Observation>, ProbeFailure> {
        let error = match values.first() {
            Some(RespValue::Error(text)) => Some(text.as_slice()),
            _ => None,
        };
        match (self.asked, error) {
            (RedisCommand::Auth, None) => self.asked = RedisCommand::Ping,
            (RedisCommand::Ping, None) => self.asked = RedisCommand::Role,
            (RedisCommand::Auth | RedisCommand::Ping, Some(error)) => return Err(self.failure(error)),
            (RedisCommand::Role, None) => return role_of(values).map(Some),
            (RedisCommand::Role, Some(_)) if self.questions == Questions::default() => {
                return Ok(Some(Observation::default()));
            }
            (RedisCommand::Role, Some(_)) => {
                self.asked = RedisCommand::Info;
                write_command(answer, &[b"INFO", b"replication"]);
            }
            (RedisCommand::Info, None) => match values {
                [RespValue::Text(text)] => return Ok(Some(info(text))),
                _ => return Err(malformed()),
            },
            (RedisCommand::Info, Some(error)) => {
                let error = printable(error);
                let reason = format!("allows neither ROLE nor INFO ({error}), set +role");
                return Err(self.account.fault(&reason));
            }
        }
        Ok(None)
    }

    fn failure(&self, error: &[u8]) -> ProbeFailure {
        let text = printable(error);
        let code = text.split(' ').next().unwrap_or_default();
        match code {
            "LOADING" => ProbeFailure::Unfit(format!("starting: {text}")),
            "MASTERDOWN" => ProbeFailure::Unfit(format!("answers PING by {text}")),
            "NOAUTH" => self.account.fault(&format!("asks for a password: {text}")),
            "WRONGPASS" => self.account.fault(&format!("refuses the password: {text}")),
            "NOPERM" => self.account.fault(&format!("permission denied: {text}")),
            "ERR" if text.contains("max number of clients") => {
                ProbeFailure::Full(format!("too many connections: {text}"))
            }
            _ if self.asked == RedisCommand::Auth => self.account.fault(&format!("refuses the login: {text}")),
            _ => ProbeFailure::Backend(format!("answers PING by {text}")),
        }
    }
}

impl DatabaseClient for RedisClient<'_> {
    fn begin(&mut self) -> Vec<u8> {
        let mut commands = Vec::new();
        match (&self.account.user, &self.account.password) {
            (Some(user), Some(password)) => write_command(&mut commands, &[b"AUTH", user.as_bytes(), password]),
            (None, Some(password)) => write_command(&mut commands, &[b"AUTH", password]),
            (_, None) => {}
        }
        write_command(&mut commands, &[b"PING"]);
        write_command(&mut commands, &[b"ROLE"]);
        commands
    }

    fn take(&mut self, received: &[u8], answer: &mut Vec<u8>) -> Result<DialogueStep, ProbeFailure> {
        self.buffer.push(received)?;
        while let Some(values) = self.reply.read(&mut self.buffer)? {
            if let Some(seen) = self.reply(&values, answer)? {
                return Ok(DialogueStep::Done(seen));
            }
        }
        Ok(DialogueStep::More)
    }

    /// A closed connection is nothing that Redis counts or logs.
    fn farewell(&self) -> &'static [u8] {
        b""
    }
}

impl PartialReply {
    /// The values of a complete reply, off the front of the buffer.
    fn read(&mut self, buffer: &mut AnswerBuffer) -> Result<Option<Vec<RespValue>>, ProbeFailure> {
        loop {
            if let Some(length) = self.string {
                if buffer.peek().len() < length {
                    return Ok(None);
                }
                let mut string = buffer.take(length);
                string.truncate(length - 2);
                self.string = None;
                self.add(RespValue::Text(string));
            } else {
                let line = buffer.peek().iter().take(MAX_LINE).position(|&byte| byte == b'\n');
                let Some(end) = line else {
                    let starts_well = buffer.peek().first().is_none_or(|kind| b"+-:$*".contains(kind));
                    if !starts_well || buffer.peek().len() >= MAX_LINE {
                        return Err(not_redis(buffer.peek()));
                    }
                    return Ok(None);
                };
                let line = buffer.take(end + 1);
                self.line(line.trim_ascii_end())?;
            }
            if self.string.is_none() && self.open.is_empty() {
                return Ok(Some(std::mem::take(&mut self.values)));
            }
        }
    }

    fn line(&mut self, line: &[u8]) -> Result<(), ProbeFailure> {
        let Some((kind, rest)) = line.split_first() else { return Err(not_redis(line)) };
        let number = || std::str::from_utf8(rest).ok().and_then(|text| text.parse::<i64>().ok());
        match kind {
            b'+' => self.add(RespValue::Text(rest.to_vec())),
            b'-' => self.add(RespValue::Error(rest.to_vec())),
            b':' => self.add(RespValue::Integer(number().ok_or_else(malformed)?)),
            b'$' | b'*' => {
                let length = number().ok_or_else(malformed)?;
                match usize::try_from(length) {
                    Err(_) => self.add(RespValue::Null),
                    // More than fits is found by the limit of the buffer.
                    Ok(length) if *kind == b'$' => self.string = Some(length.saturating_add(2)),
                    Ok(count) => {
                        if self.open.len() == MAX_DEPTH {
                            return Err(malformed());
                        }
                        self.values.push(RespValue::Array);
                        self.open.push(count);
                        self.close();
                    }
                }
            }
            _ => return Err(not_redis(line)),
        }
        Ok(())
    }

    fn add(&mut self, value: RespValue) {
        self.values.push(value);
        if let Some(left) = self.open.last_mut() {
            *left = left.saturating_sub(1);
        }
        self.close();
    }

    /// Closes the arrays that are complete; each is a member of the one around it.
    fn close(&mut self) {
        while self.open.last() == Some(&0) {
            self.open.pop();
            if let Some(left) = self.open.last_mut() {
                *left = left.saturating_sub(1);
            }
        }
    }
}

fn write_command(to: &mut Vec<u8>, words: &[&[u8]]) {
    to.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        to.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        to.extend_from_slice(word);
        to.extend_from_slice(b"\r\n");
    }
}

/// What ROLE says. Dragonfly says `replica` for `slave`.
fn role_of(values: &[RespValue]) -> Result<Observation, ProbeFailure> {
    let seen = |role, position: Option<&RespValue>, fault| Observation {
        role: Some(role),
        position: match position {
            Some(RespValue::Integer(offset)) => u64::try_from(*offset).ok(),
            _ => None,
        },
        fault,
        ..Observation::default()
    };
    match values {
        [RespValue::Array, RespValue::Text(role), rest @ ..] => match role.as_slice() {
            b"master" => Ok(seen(ServerRole::Primary, rest.first(), None)),
            b"slave" | b"replica" => {
                let fault = match rest.get(2) {
                    Some(RespValue::Text(state)) if state == b"connected" => None,
                    Some(RespValue::Text(state)) => Some(disconnected(&printable(state))),
                    _ => return Err(malformed()),
                };
                Ok(seen(ServerRole::Replica, rest.get(3), fault))
            }
            b"sentinel" => Err(ProbeFailure::backend("is a Sentinel, which holds no data")),
            _ => Err(malformed()),
        },
        _ => Err(malformed()),
    }
}

/// What `INFO replication` says.
fn info(text: &[u8]) -> Observation {
    let text = String::from_utf8_lossy(text);
    let field = |name: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(key, _)| *key == name).map(|(_, value)| value.trim())
    };
    let offset = |name: &str| field(name).and_then(|value| value.parse().ok());
    match field("role") {
        Some("master") => Observation {
            role: Some(ServerRole::Primary),
            position: offset("master_repl_offset"),
            ..Observation::default()
        },
        Some("slave" | "replica") => Observation {
            role: Some(ServerRole::Replica),
            position: offset("slave_repl_offset"),
            fault: match field("master_link_status") {
                Some("up") => None,
                state => Some(disconnected(&printable(state.unwrap_or("unknown").as_bytes()))),
            },
            ..Observation::default()
        },
        _ => Observation::default(),
    }
}

fn disconnected(state: &str) -> String {
    format!("replica without a connection to its primary ({state})")
}

fn malformed() -> ProbeFailure {
    ProbeFailure::backend("sends a malformed reply")
}

fn not_redis(bytes: &[u8]) -> ProbeFailure {
    ProbeFailure::Backend(format!("answer is not Redis's: begins with {}", quoted(bytes)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{account, dialogue, pieces, survive};
    use super::*;
    use crate::config::model::RequiredRole;

    fn check(account: &CheckAccount, role: RequiredRole, answers: &[&[u8]]) -> (Vec<Vec<u8>>, String) {
        let (sent, outcome) = dialogue(&mut RedisClient::new(account, Questions::of_role(role)), answers);
        let outcome = match outcome {
            Ok(DialogueStep::Done(Observation { role, position, fault, .. })) => {
                let role = role.map_or("-", ServerRole::name);
                format!(
                    "{role} {}{}",
                    position.unwrap_or_default(),
                    fault.map(|it| format!(" {it}")).unwrap_or_default()
                )
            }
            Ok(_) => "more".to_owned(),
            Err(reason) => reason,
        };
        (sent, outcome)
    }

    fn nobody() -> CheckAccount {
        CheckAccount { section: "health.redis", user: None, password: None, file: None }
    }

    #[test]
    fn commands_are_sent_at_once() {
        let tail = b"*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nROLE\r\n";
        let sent = |account: &CheckAccount| RedisClient::new(account, Questions::default()).begin();
        assert_eq!(sent(&nobody()), tail);
        let with = account("health.redis");
        let auth = b"*3\r\n$4\r\nAUTH\r\n$5\r\ncheck\r\n$6\r\npencil\r\n";
        assert_eq!(sent(&with), [&auth[..], tail].concat());
        let default = CheckAccount { user: None, ..account("health.redis") };
        assert_eq!(sent(&default), [&b"*2\r\n$4\r\nAUTH\r\n$6\r\npencil\r\n"[..], tail].concat());
    }

    #[test]
    fn role_and_readiness() {
        let slave = |state: &str| {
            format!("+PONG\r\n*5\r\n$5\r\nslave\r\n$9\r\n127.0.0.1\r\n:6379\r\n${}\r\n{state}\r\n:42\r\n", state.len())
        };
        for (role, answer, outcome) in [
            (RequiredRole::Any, "+PONG\r\n-NOPERM x\r\n".to_owned(), "- 0"),
            (RequiredRole::Any, "+PONG\r\n*3\r\n$6\r\nmaster\r\n:7\r\n*0\r\n".to_owned(), "primary 7"),
            (
                RequiredRole::Primary,
                "+PONG\r\n*3\r\n$6\r\nmaster\r\n:7\r\n*1\r\n*3\r\n$1\r\na\r\n$1\r\n1\r\n$1\r\n7\r\n".to_owned(),
                "primary 7",
            ),
            (RequiredRole::Replica, slave("connected"), "replica 42"),
            (RequiredRole::Replica, slave("sync"), "replica 42 replica without a connection to its primary (sync)"),
            (
                RequiredRole::Replica,
                "+PONG\r\n*1\r\n$8\r\nsentinel\r\n".to_owned(),
                "is a Sentinel, which holds no data",
            ),
            (
                RequiredRole::Any,
                "-LOADING Redis is loading\r\n".to_owned(),
                "unfit: starting: LOADING Redis is loading",
            ),
            (
                RequiredRole::Any,
                "-MASTERDOWN Link is down\r\n".to_owned(),
                "unfit: answers PING by MASTERDOWN Link is down",
            ),
            (
                RequiredRole::Any,
                "-ERR max number of clients reached\r\n".to_owned(),
                "full: too many connections: ERR max number of clients reached",
            ),
            (
                RequiredRole::Any,
                "-NOAUTH Authentication required.\r\n".to_owned(),
                "asks for a password: NOAUTH Authentication required.: see health.redis (the default user, no password_file)",
            ),
            (RequiredRole::Primary, "+PONG\r\n+OK\r\n".to_owned(), "sends a malformed reply"),
            (RequiredRole::Any, "HTTP/1.1 400\r\n".to_owned(), "answer is not Redis's: begins with \"HTTP/1.1 400\""),
            (RequiredRole::Any, "J\0\0\0".to_owned(), "answer is not Redis's: begins with \"J\\x00\\x00\\x00\""),
        ] {
            assert_eq!(check(&nobody(), role, &[answer.as_bytes()]).1, outcome, "{answer}");
            let single: Vec<&[u8]> = answer.as_bytes().chunks(1).collect();
            if !outcome.contains("answer is not") {
                assert_eq!(check(&nobody(), role, &single).1, outcome, "{answer} in single bytes");
            }
        }
    }

    #[test]
    fn logins() {
        let with = account("health.redis");
        let see = "see health.redis (user `check`, password from /etc/pw)";
        for (answer, outcome) in [
            ("+OK\r\n+PONG\r\n*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n", "primary 0".to_owned()),
            ("-WRONGPASS invalid\r\n-NOAUTH x\r\n", format!("refuses the password: WRONGPASS invalid: {see}")),
            ("-ERR no password is set\r\n", format!("refuses the login: ERR no password is set: {see}")),
            ("+OK\r\n-NOPERM no ping\r\n", format!("permission denied: NOPERM no ping: {see}")),
        ] {
            assert_eq!(check(&with, RequiredRole::Primary, &[answer.as_bytes()]).1, outcome, "{answer}");
        }
    }

    #[test]
    fn info_stands_in_for_role() {
        let refused: &[u8] = b"+PONG\r\n-NOPERM no role\r\n";
        let bulk = |text: &str| format!("${}\r\n{text}\r\n", text.len()).into_bytes();
        for (text, outcome) in [
            ("# Replication\r\nrole:master\r\nmaster_repl_offset:12\r\n", "primary 12"),
            ("role:slave\r\nmaster_link_status:up\r\nslave_repl_offset:9\r\n", "replica 9"),
            (
                "role:slave\r\nmaster_link_status:down\r\n",
                "replica 0 replica without a connection to its primary (down)",
            ),
            ("x", "- 0"),
        ] {
            let (sent, told) = check(&nobody(), RequiredRole::Primary, &[refused, &bulk(text)]);
            assert_eq!(told, outcome);
            assert_eq!(sent[1], b"*2\r\n$4\r\nINFO\r\n$11\r\nreplication\r\n");
        }
        let told = check(&nobody(), RequiredRole::Primary, &[refused, b"-NOPERM no info\r\n"]).1;
        assert!(
            told.starts_with("allows neither ROLE nor INFO (NOPERM no info), set +role: see health.redis"),
            "{told}"
        );
    }

    proptest! {
        #[test]
        fn arbitrary_replies_never_panic(pieces in pieces(), lines in "([+:$*-][0-9a-z-]{0,12}\r\n){0,40}", wanted in 0..3_usize) {
            let role = [RequiredRole::Any, RequiredRole::Primary, RequiredRole::Replica][wanted];
            let account = account("health.redis");
            survive(&mut RedisClient::new(&account, Questions::of_role(role)), &pieces);
            survive(&mut RedisClient::new(&account, Questions::of_role(role)), &[lines.into_bytes()]);
        }
    }
}
