//! Checks of databases: PostgreSQL, MySQL and MariaDB, Redis and Valkey.
//!
//! Each protocol has a client of its own (`postgres`, `mysql`, `redis`), as far as a check needs it: a state machine without
//! I/O. Drivers hide what a check wants: the exact reason of a failure, the code of an error, no pool and no reconnects.
//! [`probe`] runs a client over a connection.

mod client;
mod mysql;
pub(super) mod password;
mod postgres;
mod redis;
mod scram;
#[cfg(test)]
mod testing;

use std::sync::{Mutex, MutexGuard, PoisonError};

use aws_lc_rs::rand;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

use self::client::{CheckAccount, DatabaseClient, DialogueStep};
use self::mysql::MysqlClient;
use self::password::{PasswordReading, password};
use self::postgres::PostgresClient;
use self::redis::RedisClient;
use self::scram::DerivedKey;
use super::failure::ProbeFailure;
use super::observation::{Observation, Questions};
use super::tcp::Connection;
use super::transport::BackendTls;
use crate::config::model::{DatabaseAccount, MysqlCheck, PostgresCheck, RedisCheck, RequiredRole};

/// Bytes read at once.
const READ: usize = 4096;

/// What the database checks of a pool share.
pub(super) struct DatabaseShared {
    passwords: watch::Receiver<PasswordReading>,
    /// Of the account's password. Replicas have the salt of their primary.
    key: Mutex<DerivedKey>,
}

impl DatabaseShared {
    pub(super) fn new(passwords: watch::Receiver<PasswordReading>) -> DatabaseShared {
        DatabaseShared { passwords, key: Mutex::default() }
    }

    fn key(&self) -> MutexGuard<'_, DerivedKey> {
        self.key.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn account(&self, section: &'static str, of: &DatabaseAccount) -> Result<CheckAccount, ProbeFailure> {
        let (mut secret, mut file) = (None, None);
        if let Some(path) = &of.password_file {
            let read = password(&self.passwords, path.reveal()).await;
            let fault = |fault| ProbeFailure::Backend(format!("{fault}: see {section}.password_file"));
            secret = Some(read.map_err(fault)?);
            file = Some(path.reveal().display().to_string());
        }
        Ok(CheckAccount { section, user: of.user.clone(), password: secret, file })
    }
}

/// One check of a PostgreSQL server.
pub(super) async fn postgres(
    connection: Connection,
    is_private: bool,
    check: &PostgresCheck,
    questions: Questions,
    shared: &DatabaseShared,
) -> Result<Observation, ProbeFailure> {
    let account = shared.account("health.postgres", &check.account).await?;
    let mut key = shared.key().clone();
    let mut client = PostgresClient::new(&account, &check.database, questions, is_private, nonce()?, &mut key);
    let outcome = converse(connection, &mut client, None).await;
    *shared.key() = key;
    outcome
}

/// One check of a MySQL or MariaDB server. `tls` is asked for within the protocol.
pub(super) async fn mysql(
    connection: Connection,
    tls: Option<BackendTls<'_>>,
    is_unix: bool,
    check: &MysqlCheck,
    questions: Questions,
    shared: &DatabaseShared,
) -> Result<Observation, ProbeFailure> {
    let account = shared.account("health.mysql", &check.account).await?;
    let mut client = MysqlClient::new(&account, questions, tls.is_some(), is_unix);
    converse(connection, &mut client, tls).await
}

/// A check of a MySQL server's TLS. It logs in, since servers block a host that breaks off after the handshake, and any answer to that
/// will do.
pub(super) async fn mysql_tls(
    connection: Connection,
    tls: BackendTls<'_>,
    is_unix: bool,
    shared: &DatabaseShared,
) -> Result<Observation, ProbeFailure> {
    let account = DatabaseAccount { user: None, password_file: None };
    let check = MysqlCheck { account, role: RequiredRole::Any, max_lag: None };
    mysql(connection, Some(tls), is_unix, &check, Questions::default(), shared).await
}

/// One check of a Redis server.
pub(super) async fn redis(
    connection: Connection,
    check: &RedisCheck,
    questions: Questions,
    shared: &DatabaseShared,
) -> Result<Observation, ProbeFailure> {
    let account = shared.account("health.redis", &check.account).await?;
    let mut client = RedisClient::new(&account, questions);
    converse(connection, &mut client, None).await
}

/// Random, of letters that need no escape in any protocol.
fn nonce() -> Result<String, ProbeFailure> {
    let mut bytes = [0; 18];
    rand::fill(&mut bytes).map_err(|_| ProbeFailure::Local("the system gives no random numbers".to_owned()))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Runs a client until it has an outcome, then ends the session.
async fn converse(
    mut connection: Connection,
    client: &mut dyn DatabaseClient,
    tls: Option<BackendTls<'_>>,
) -> Result<Observation, ProbeFailure> {
    let outcome = dialogue(&mut connection, client, tls).await;
    // The outcome is known: a failure of these changes nothing.
    let _ = connection.write_all(client.farewell()).await;
    let _ = connection.shutdown().await;
    outcome
}

async fn dialogue(
    connection: &mut Connection,
    client: &mut dyn DatabaseClient,
    tls: Option<BackendTls<'_>>,
) -> Result<Observation, ProbeFailure> {
    let (mut part, mut answer) = ([0; READ], client.begin());
    connection.write_all(&answer).await?;
    loop {
        let mut count = connection.read(&mut part).await?;
        if count == 0 {
            return Err(ProbeFailure::no_answer());
        }
        loop {
            answer.clear();
            let progress = client.take(&part[..count], &mut answer)?;
            connection.write_all(&answer).await?;
            match (progress, tls) {
                (DialogueStep::Done(seen), _) => return Ok(seen),
                (DialogueStep::StartTls, Some(tls)) => {
                    let plain = std::mem::replace(connection, Box::new(tokio::io::empty()));
                    *connection = tls.start(plain).await?;
                    count = 0;
                }
                (DialogueStep::More | DialogueStep::StartTls, _) => break,
            }
        }
    }
}
