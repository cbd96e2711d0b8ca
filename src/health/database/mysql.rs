//! A client of the protocol of MySQL and MariaDB ("Client/Server Protocol" of MySQL's internals), up to a few queries. Pure.
//!
//! It always logs in and always says goodbye: servers count connections without a login, and block the host after
//! `max_connect_errors` of them (error 1129).

#![forbid(unsafe_code)]

mod packet;
mod query;

use self::packet::{ServerError, login, tls_request};
use self::query::{MysqlQuery, QueryAnswer, ResultSet};
use super::client::{AnswerBuffer, CheckAccount, DEFAULT_USER, DatabaseClient, DialogueStep, printable};
use crate::health::failure::{ProbeFailure, quoted};
use crate::health::observation::{Observation, Questions};
use crate::mysql::auth::{self, encrypted_password};
use crate::mysql::method::{self, AuthMethod};
use crate::mysql::packet::{Greeting, packet, split_packet};

/// COM_QUIT.
const FAREWELL: &[u8] = &[1, 0, 0, 0, 1];

/// COM_QUERY.
const QUERY: u8 = 3;

/// One check.
pub(super) struct MysqlClient<'a> {
    account: &'a CheckAccount,
    questions: Questions,
    seen: Observation,
    /// TLS comes after the server's greeting.
    wants_tls: bool,
    /// No third party can read it: TLS, or a unix socket.
    is_private: bool,
    buffer: AnswerBuffer,
    stage: MysqlStage,
}

enum MysqlStage {
    Greeting,
    /// TLS is requested; the login comes next.
    Encrypting(Greeting),
    Login {
        method: AuthMethod,
        scramble: Vec<u8>,
        /// The server's public key is requested.
        awaits_key: bool,
    },
    Query(MysqlQuery, ResultSet),
}

impl<'a> MysqlClient<'a> {
    /// `is_private`: a unix socket, or TLS once it is established.
    pub(super) fn new(
        account: &'a CheckAccount,
        questions: Questions,
        wants_tls: bool,
        is_private: bool,
    ) -> MysqlClient<'a> {
        let (buffer, stage, seen) = (AnswerBuffer::default(), MysqlStage::Greeting, Observation::default());
        MysqlClient { account, questions, seen, wants_tls, is_private, buffer, stage }
    }

    /// Handles one packet; anything but `More` ends what can be handled now.
    fn packet(&mut self, sequence: u8, body: &[u8], answer: &mut Vec<u8>) -> Result<DialogueStep, ProbeFailure> {
        if let Some(error) = ServerError::read(body)
            && !matches!(self.stage, MysqlStage::Query(..))
        {
            return self.refused(&error);
        }
        match &mut self.stage {
            MysqlStage::Greeting => {
                let greeting = Greeting::read(body).ok_or_else(|| not_mysql(body))?;
                if self.wants_tls {
                    if !greeting.has_tls() {
                        return Err(ProbeFailure::backend("refuses TLS (have_ssl is not YES)"));
                    }
                    answer.extend(packet(sequence.wrapping_add(1), &tls_request()));
                    self.stage = MysqlStage::Encrypting(greeting);
                    return Ok(DialogueStep::StartTls);
                }
                self.login(&greeting, sequence.wrapping_add(1), answer)?;
            }
            // Plain text after the request for TLS is not the server's.
            MysqlStage::Encrypting(_) => return Err(malformed()),
            MysqlStage::Login { method, scramble, awaits_key } => match body.split_first() {
                Some((0x00, _)) => return Ok(self.accepted(answer)),
                Some((0xfe, [])) => {
                    return Err(self
                        .account
                        .fault("asks for an authentication method of MySQL 4.0, which is not supported"));
                }
                Some((0xfe, rest)) => {
                    let (name, seed) = method::switch(rest).ok_or_else(malformed)?;
                    (*method, *scramble, *awaits_key) = (AuthMethod::named(&name), seed, false);
                    let response = self.response()?;
                    answer.extend(packet(sequence.wrapping_add(1), &response));
                }
                Some((0x01, rest)) if *awaits_key => {
                    *awaits_key = false;
                    let encrypted = encrypted_password(rest, self.account.password(), scramble)
                        .ok_or_else(|| ProbeFailure::backend("sends an RSA key that cannot be used"))?;
                    answer.extend(packet(sequence.wrapping_add(1), &encrypted));
                }
                // The fast authentication has succeeded: OK follows.
                Some((0x01, [0x03])) => {}
                // The full one is needed: the server's cache does not have the account.
                Some((0x01, [0x04])) if *method == AuthMethod::CachingSha2 => {
                    let reply = match self.is_private {
                        true => self.account.terminated_password(),
                        false => {
                            *awaits_key = true;
                            vec![0x02]
                        }
                    };
                    answer.extend(packet(sequence.wrapping_add(1), &reply));
                }
                _ => return Err(malformed()),
            },
            MysqlStage::Query(query, rows) => {
                let (query, answered) = (*query, rows.take(body).ok_or_else(malformed)?);
                let Some(answered) = answered else { return Ok(DialogueStep::More) };
                return self.answered(query, answered, answer);
            }
        }
        Ok(DialogueStep::More)
    }

    fn login(&mut self, greeting: &Greeting, sequence: u8, answer: &mut Vec<u8>) -> Result<(), ProbeFailure> {
        // What the server does not know by that name it switches.
        let method = match AuthMethod::named(&greeting.method) {
            known @ (AuthMethod::Native | AuthMethod::CachingSha2) => known,
            _ => AuthMethod::Native,
        };
        let user = self.account.user.as_deref().unwrap_or(DEFAULT_USER);
        let name = method.name().to_owned();
        self.stage = MysqlStage::Login { method, scramble: greeting.scramble.clone(), awaits_key: false };
        let response = self.response()?;
        answer.extend(packet(sequence, &login(self.wants_tls, user, &response, &name)));
        Ok(())
    }

    /// The proof of the password by the method that the server asks for.
    fn response(&self) -> Result<Vec<u8>, ProbeFailure> {
        let MysqlStage::Login { method, scramble, .. } = &self.stage else { return Err(malformed()) };
        let password = self.account.password();
        let clear = |name: &str| match self.is_private {
            true => Ok(self.account.terminated_password()),
            false => Err(self.account.fault(&format!(
                "asks for the password in clear text ({name}), which is sent over TLS only: set pools[].tls"
            ))),
        };
        match method {
            _ if password.is_empty() => Ok(Vec::new()),
            AuthMethod::Native => Ok(auth::native(password, scramble)),
            AuthMethod::CachingSha2 => Ok(auth::caching_sha2(password, scramble)),
            AuthMethod::Clear | AuthMethod::Sha256 => clear(method.name()),
            AuthMethod::Other(name) => {
                let name = printable(name.as_bytes());
                Err(self.account.fault(&format!("asks for the authentication method {name}, which is not supported")))
            }
        }
    }

    /// The login succeeded: asks what there is to ask.
    fn accepted(&mut self, answer: &mut Vec<u8>) -> DialogueStep {
        match self.account.user {
            None => DialogueStep::Done(Observation::default()),
            Some(_) => self.ask_next(answer),
        }
    }

    /// Asks the next question, or ends.
    fn ask_next(&mut self, answer: &mut Vec<u8>) -> DialogueStep {
        let Questions { cluster, is_writable, replication, .. } = &mut self.questions;
        let open = [
            (cluster, MysqlQuery::Galera),
            (is_writable, MysqlQuery::ReadOnly),
            (replication, MysqlQuery::ReplicaStatus),
        ];
        let next = open.into_iter().find(|(is_open, _)| **is_open);
        let Some((is_open, query)) = next else { return DialogueStep::Done(std::mem::take(&mut self.seen)) };
        *is_open = false;
        self.ask(query, answer);
        DialogueStep::More
    }

    fn ask(&mut self, query: MysqlQuery, answer: &mut Vec<u8>) {
        let mut command = vec![QUERY];
        command.extend_from_slice(query.text().as_bytes());
        answer.extend(packet(0, &command));
        self.stage = MysqlStage::Query(query, ResultSet::default());
    }

    fn answered(
        &mut self,
        query: MysqlQuery,
        answered: QueryAnswer,
        answer: &mut Vec<u8>,
    ) -> Result<DialogueStep, ProbeFailure> {
        let rows = match answered {
            QueryAnswer::Rows(rows) => rows,
            QueryAnswer::Error(error) => match query.instead(error.code) {
                Some(other) => {
                    self.ask(other, answer);
                    return Ok(DialogueStep::More);
                }
                None => return Err(self.query_failed(&error)),
            },
        };
        match query.observe(&rows) {
            Ok(seen) => {
                query.merge(&mut self.seen, seen);
                Ok(self.ask_next(answer))
            }
            Err(other) => {
                self.ask(other, answer);
                Ok(DialogueStep::More)
            }
        }
    }

    fn query_failed(&self, error: &ServerError) -> ProbeFailure {
        match error.code {
            1044 | 1142 | 1227 => self.account.fault(&format!("permission denied: {error}")),
            // Of a Galera node outside the primary component.
            1047 => ProbeFailure::Backend(format!("is not part of the primary component: {error}")),
            _ => ProbeFailure::Backend(format!("query failed: {error}")),
        }
    }

    /// The server refuses the connection or the login.
    fn refused(&self, error: &ServerError) -> Result<DialogueStep, ProbeFailure> {
        Err(match error.code {
            1040 | 1203 | 1226 => ProbeFailure::Full(format!("too many connections: {error}")),
            1129 => ProbeFailure::Backend(format!(
                "blocks this host: {error}; unblock it by FLUSH HOSTS, or TRUNCATE TABLE performance_schema.host_cache"
            )),
            1130 => self.account.fault(&format!("allows no account from this host: {error}")),
            1053 => ProbeFailure::Unfit(format!("stops: {error}")),
            // A server that refuses a login is alive.
            1044 | 1045 | 1698 if self.account.user.is_none() => return Ok(DialogueStep::Done(Observation::default())),
            1045 | 1698 => self.account.fault(&format!("refuses the password: {error}")),
            3159 => self.account.fault(&format!("requires TLS, set pools[].tls: {error}")),
            1044 | 1820 | 1862 | 3118 | 3955 | 4151 => self.account.fault(&format!("refuses the login: {error}")),
            1251 => self.account.fault(&format!("asks for an authentication method that is not supported: {error}")),
            _ => ProbeFailure::Backend(format!("refuses the connection: {error}")),
        })
    }
}

impl DatabaseClient for MysqlClient<'_> {
    fn begin(&mut self) -> Vec<u8> {
        Vec::new()
    }

    fn take(&mut self, received: &[u8], answer: &mut Vec<u8>) -> Result<DialogueStep, ProbeFailure> {
        self.buffer.push(received)?;
        if received.is_empty()
            && let MysqlStage::Encrypting(greeting) = &self.stage
        {
            let greeting = greeting.clone();
            self.is_private = true;
            self.login(&greeting, 2, answer)?;
            return Ok(DialogueStep::More);
        }
        loop {
            let Some((sequence, length)) =
                split_packet(self.buffer.peek()).map_err(|_| not_mysql(self.buffer.peek()))?
            else {
                return Ok(DialogueStep::More);
            };
            if length == 0 {
                return Err(not_mysql(self.buffer.peek()));
            }
            let whole = self.buffer.take(4 + length);
            match self.packet(sequence, &whole[4..], answer)? {
                DialogueStep::More => {}
                // What came in plain text after the greeting would be taken for an answer within TLS.
                DialogueStep::StartTls if !self.buffer.peek().is_empty() => return Err(malformed()),
                other => return Ok(other),
            }
        }
    }

    fn farewell(&self) -> &'static [u8] {
        match self.stage {
            MysqlStage::Login { .. } | MysqlStage::Query(..) => FAREWELL,
            MysqlStage::Greeting | MysqlStage::Encrypting(_) => b"",
        }
    }
}

impl CheckAccount {
    fn password(&self) -> &[u8] {
        self.password.as_deref().unwrap_or_default()
    }

    fn terminated_password(&self) -> Vec<u8> {
        [self.password(), b"\0"].concat()
    }
}

fn malformed() -> ProbeFailure {
    ProbeFailure::backend("sends a malformed packet")
}

fn not_mysql(bytes: &[u8]) -> ProbeFailure {
    ProbeFailure::Backend(format!("answer is not MySQL's: begins with {}", quoted(bytes)))
}

#[cfg(test)]
mod tests;
