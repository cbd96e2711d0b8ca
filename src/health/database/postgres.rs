//! A client of PostgreSQL's protocol 3.0 ("Message Flow" of its manual), up to one query. Pure.
//!
//! The role comes from the parameter `in_hot_standby`, which version 14 and later report at the start of a session; older ones,
//! and poolers that hide it, are asked by a query. The position in the write-ahead log and the timeline are asked for where a pool needs them.

#![forbid(unsafe_code)]

use super::client::{AnswerBuffer, CheckAccount, DEFAULT_USER, DatabaseClient, DialogueStep, printable};
use super::scram::{DerivedKey, MECHANISM, Scram, ScramFault};
use crate::health::failure::{ProbeFailure, quoted};
use crate::health::observation::{Observation, Questions};
use crate::stats::database::ServerRole;

/// Bytes of the longest message. An error with the longest texts has a few KiB.
const MAX_MESSAGE: usize = 64 * 1024;

const QUERY_ROLE: &str = "SELECT pg_catalog.pg_is_in_recovery()";

/// The columns are the role, the position, and the timeline of a primary. Version 10 and later.
///
/// The name of the file in which it writes begins with the timeline. `pg_control_checkpoint` has the old one until the first
/// checkpoint after a promotion.
const QUERY_POSITION: &str = "SELECT pg_catalog.pg_is_in_recovery(), CASE WHEN pg_catalog.pg_is_in_recovery() \
     THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_lsn() END, \
     CASE WHEN NOT pg_catalog.pg_is_in_recovery() \
     THEN pg_catalog.left(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 8) END";

/// Terminate.
const FAREWELL: &[u8] = b"X\0\0\0\x04";

/// One check.
pub(super) struct PostgresClient<'a> {
    account: &'a CheckAccount,
    database: &'a str,
    questions: Questions,
    /// No third party can read it: TLS, or a unix socket.
    is_private: bool,
    inbox: AnswerBuffer,
    scram: Scram,
    key: &'a mut DerivedKey,
    stage: LoginStage,
    seen: Observation,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LoginStage {
    /// Until the server accepts the login.
    Login,
    /// SASL: the client's first message is sent.
    SaslFirst,
    /// SASL: the proof is sent.
    SaslProof,
    /// SASL: the server's signature is right, or there was no SASL.
    Accepted,
    /// The query is sent.
    Query,
}

impl<'a> PostgresClient<'a> {
    /// `nonce` is random, printable ASCII without a comma.
    pub(super) fn new(
        account: &'a CheckAccount,
        database: &'a str,
        questions: Questions,
        is_private: bool,
        nonce: String,
        key: &'a mut DerivedKey,
    ) -> PostgresClient<'a> {
        PostgresClient {
            account,
            database,
            questions,
            is_private,
            inbox: AnswerBuffer::default(),
            scram: Scram::new(nonce),
            key,
            stage: LoginStage::Login,
            seen: Observation::default(),
        }
    }

    /// Handles one message; `Some` ends the check.
    fn message(&mut self, kind: u8, body: &[u8], answer: &mut Vec<u8>) -> Result<Option<Observation>, ProbeFailure> {
        match kind {
            b'R' => {
                if self.account.user.is_none() {
                    return Ok(Some(Observation::default()));
                }
                self.authenticate(body, answer)?;
            }
            b'S' => self.parameter(body),
            b'E' => return self.error(body),
            b'Z' if self.stage == LoginStage::Accepted => match self.query() {
                None => return Ok(Some(self.seen.clone())),
                Some(query) => {
                    self.stage = LoginStage::Query;
                    write_message(answer, b'Q', &[query.as_bytes(), b"\0"]);
                }
            },
            b'Z' if self.stage == LoginStage::Query => return Ok(Some(self.seen.clone())),
            b'D' if self.stage == LoginStage::Query => self.row(body)?,
            // NegotiateProtocolVersion, BackendKeyData, NoticeResponse, NotificationResponse, RowDescription, CommandComplete
            b'v' | b'K' | b'N' | b'A' | b'T' | b'C' => {}
            _ => return Err(ProbeFailure::Backend(format!("sends an unexpected message `{}`", kind.escape_ascii()))),
        }
        Ok(None)
    }

    fn authenticate(&mut self, body: &[u8], answer: &mut Vec<u8>) -> Result<(), ProbeFailure> {
        let Some((code, data)) = body.split_first_chunk::<4>() else { return Err(malformed()) };
        match (u32::from_be_bytes(*code), self.stage) {
            // Without the signature nothing says that the server knows the password.
            (0, LoginStage::Login | LoginStage::Accepted) => self.stage = LoginStage::Accepted,
            (3, LoginStage::Login) if self.is_private => {
                write_message(answer, b'p', &[self.password()?, b"\0"]);
            }
            (3, LoginStage::Login) => {
                return Err(self.account.fault(
                    "asks for the password in clear text, which is sent over TLS only: set pools[].tls, or use scram-sha-256 \
                     in pg_hba.conf",
                ));
            }
            (5, LoginStage::Login) => {
                return Err(self.account.fault(
                    "stores the password as an MD5 hash, which is not supported: set password_encryption = 'scram-sha-256' and \
                     set the password again",
                ));
            }
            (10, LoginStage::Login) => {
                let mut offered = data.split(|&byte| byte == 0);
                if !offered.any(|name| name == MECHANISM.as_bytes()) {
                    return Err(self
                        .account
                        .fault("offers no authentication method that is supported (SCRAM-SHA-256)"));
                }
                self.password()?;
                let first = self.scram.first();
                let length = (first.len() as u32).to_be_bytes();
                write_message(answer, b'p', &[MECHANISM.as_bytes(), b"\0", &length, &first]);
                self.stage = LoginStage::SaslFirst;
            }
            (11, LoginStage::SaslFirst) => {
                let password = self.account.password.as_deref().unwrap_or_default();
                let last = self.scram.last(data, password, self.key).map_err(scram_failure)?;
                write_message(answer, b'p', &[&last]);
                self.stage = LoginStage::SaslProof;
            }
            (12, LoginStage::SaslProof) => {
                self.scram.verify(data).map_err(scram_failure)?;
                self.stage = LoginStage::Accepted;
            }
            (2 | 7 | 8 | 9, LoginStage::Login) => {
                return Err(self.account.fault("asks for Kerberos or SSPI authentication, which is not supported"));
            }
            (code, _) => {
                return Err(ProbeFailure::Backend(format!("sends an unexpected authentication message {code}")));
            }
        }
        Ok(())
    }

    fn password(&self) -> Result<&'a [u8], ProbeFailure> {
        self.account.password.as_deref().ok_or_else(|| self.account.fault("asks for a password"))
    }

    fn parameter(&mut self, body: &[u8]) {
        let mut words = body.split(|&byte| byte == 0);
        if words.next() == Some(b"in_hot_standby") {
            self.seen.role = match words.next() {
                Some(b"on") => Some(ServerRole::Replica),
                Some(b"off") => Some(ServerRole::Primary),
                _ => None,
            };
        }
    }

    /// What there is still to ask.
    fn query(&self) -> Option<&'static str> {
        let Questions { is_writable, replication, timeline, .. } = self.questions;
        match self.seen.role {
            _ if replication || timeline => Some(QUERY_POSITION),
            None if is_writable => Some(QUERY_ROLE),
            _ => None,
        }
    }

    fn row(&mut self, body: &[u8]) -> Result<(), ProbeFailure> {
        let mut columns = columns(body).ok_or_else(malformed)?.into_iter();
        self.seen.role = match columns.next().flatten() {
            Some(b"t") => Some(ServerRole::Replica),
            Some(b"f") => Some(ServerRole::Primary),
            _ => return Err(malformed()),
        };
        // NULL until a replica has replayed anything.
        if let Some(position) = columns.next().flatten() {
            self.seen.position = Some(position_of(position).ok_or_else(malformed)?);
        }
        if let Some(timeline) = columns.next().flatten() {
            let hex = std::str::from_utf8(timeline).ok().and_then(|hex| u32::from_str_radix(hex, 16).ok());
            self.seen.timeline = Some(hex.ok_or_else(malformed)?);
        }
        Ok(())
    }

    fn error(&self, body: &[u8]) -> Result<Option<Observation>, ProbeFailure> {
        let field = |wanted: u8| {
            let mut fields = body.split(|&byte| byte == 0);
            fields.find_map(|field| field.strip_prefix(&[wanted])).unwrap_or_default()
        };
        let (code, text) = (printable(field(b'C')), printable(field(b'M')));
        let is_login = self.stage != LoginStage::Query;
        Err(match code.as_str() {
            "57P03" => ProbeFailure::Unfit(format!("starting: {text} (57P03)")),
            "53300" => ProbeFailure::Full(format!("too many connections: {text} (53300)")),
            // A server that refuses a login is alive.
            "28P01" | "28000" | "3D000" if self.account.user.is_none() => return Ok(Some(Observation::default())),
            "28P01" => self.account.fault(&format!("refuses the password: {text} (28P01)")),
            "28000" => self.account.fault(&format!("refuses the login: {text} (28000)")),
            "3D000" => {
                let database = self.database.escape_debug();
                self.account.fault(&format!("has no database `{database}`: {text} (3D000)"))
            }
            "42501" => self.account.fault(&format!("permission denied: {text} (42501)")),
            _ if is_login => ProbeFailure::Backend(format!("refuses the session: {text} ({code})")),
            _ => ProbeFailure::Backend(format!("query failed: {text} ({code})")),
        })
    }
}

impl DatabaseClient for PostgresClient<'_> {
    fn begin(&mut self) -> Vec<u8> {
        let user = self.account.user.as_deref().unwrap_or(DEFAULT_USER);
        let mut body = 0x0003_0000_u32.to_be_bytes().to_vec();
        for text in ["user", user, "database", self.database, "application_name", "tidegate"] {
            body.extend_from_slice(text.as_bytes());
            body.push(0);
        }
        body.push(0);
        let mut message = (body.len() as u32 + 4).to_be_bytes().to_vec();
        message.append(&mut body);
        message
    }

    fn take(&mut self, received: &[u8], answer: &mut Vec<u8>) -> Result<DialogueStep, ProbeFailure> {
        self.inbox.push(received)?;
        while let Some((&kind, rest)) = self.inbox.peek().split_first() {
            if !kind.is_ascii_alphabetic() {
                return Err(not_postgres(self.inbox.peek()));
            }
            let Some((length, rest)) = rest.split_first_chunk::<4>() else { break };
            let length = u32::from_be_bytes(*length) as usize;
            if !(4..=MAX_MESSAGE).contains(&length) {
                return Err(not_postgres(self.inbox.peek()));
            }
            if rest.len() < length - 4 {
                break;
            }
            let message = self.inbox.take(1 + length);
            if let Some(seen) = self.message(kind, &message[5..], answer)? {
                return Ok(DialogueStep::Done(seen));
            }
        }
        Ok(DialogueStep::More)
    }

    fn farewell(&self) -> &'static [u8] {
        FAREWELL
    }
}

fn write_message(to: &mut Vec<u8>, kind: u8, parts: &[&[u8]]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    to.push(kind);
    to.extend_from_slice(&(length as u32 + 4).to_be_bytes());
    parts.iter().for_each(|part| to.extend_from_slice(part));
}

/// The columns of a DataRow; `None` is NULL.
fn columns(body: &[u8]) -> Option<Vec<Option<&[u8]>>> {
    let (count, mut rest) = body.split_first_chunk::<2>()?;
    let mut columns = Vec::new();
    for _ in 0..u16::from_be_bytes(*count).min(8) {
        let (length, tail) = rest.split_first_chunk::<4>()?;
        let length = i32::from_be_bytes(*length);
        let (column, tail) = match usize::try_from(length) {
            Err(_) => (None, tail),
            Ok(length) => tail.split_at_checked(length).map(|(column, tail)| (Some(column), tail))?,
        };
        columns.push(column);
        rest = tail;
    }
    Some(columns)
}

/// `16/B374D848` as a number of bytes.
fn position_of(text: &[u8]) -> Option<u64> {
    let (high, low) = std::str::from_utf8(text).ok()?.split_once('/')?;
    let part = |text: &str| u32::from_str_radix(text, 16).ok();
    Some(u64::from(part(high)?) << 32 | u64::from(part(low)?))
}

fn scram_failure(fault: ScramFault) -> ProbeFailure {
    match fault {
        ScramFault::Malformed => malformed(),
        ScramFault::Iterations(count) => {
            ProbeFailure::Backend(format!("asks for {count} iterations of SCRAM, the maximum is 200000"))
        }
        ScramFault::Signature => ProbeFailure::backend(
            "cannot prove to know the password (SCRAM): this is not the server, or it was changed",
        ),
    }
}

fn malformed() -> ProbeFailure {
    ProbeFailure::backend("sends a malformed message")
}

fn not_postgres(bytes: &[u8]) -> ProbeFailure {
    ProbeFailure::Backend(format!("answer is not PostgreSQL's: begins with {}", quoted(bytes)))
}

#[cfg(test)]
mod tests;
