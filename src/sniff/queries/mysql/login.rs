//! Greeting and login.

#![forbid(unsafe_code)]

use super::capability;
use super::packet::length_encoded;
use super::wire::MALFORMED;
use crate::sniff::queries::event::{Ended, shortened};
use crate::sniff::queries::framing::until_nul;
use crate::stats::queries::PassthroughReason;

/// Bytes of a greeting or a login that are looked at: users and databases lie in them.
pub(super) const MAX_SEEN: usize = 1024;

/// Length of an SSLRequest: a login without names.
const SSL_REQUEST: u32 = 32;

/// What both sides have agreed on at a login that was not watched.
#[derive(Debug)]
pub struct MysqlLogin {
    /// Capabilities that both sides have: those of MySQL in the lower 32 bits, those of MariaDB in the upper ones.
    pub(super) agreed: u64,
    pub(super) names: AskedNames,
}

impl MysqlLogin {
    /// From the payloads of the server's greeting and of the client's login, whether or not they ask for TLS. `None` if they are
    /// none.
    pub fn read(greeting: &[u8], login: &[u8]) -> Option<MysqlLogin> {
        let server = self::greeting(greeting)? & !capability::SSL;
        let (agreed, names) = self::login(login, u32::MAX, server).ok()?;
        Some(MysqlLogin { agreed, names })
    }
}

/// Whether what follows a login with these capabilities can be followed.
pub(super) fn is_followed(agreed: u64) -> Result<(), Ended> {
    if agreed & (capability::COMPRESS | capability::ZSTD) != 0 {
        return Err(Some(PassthroughReason::Compressed));
    }
    if agreed & (capability::OPTIONAL_METADATA | capability::COM_MULTI) != 0 {
        return Err(Some(PassthroughReason::Unsupported));
    }
    Ok(())
}

/// User and database that the client has asked for by a command.
#[derive(Debug, Default)]
pub(super) struct AskedNames {
    pub(super) user: Option<Vec<u8>>,
    pub(super) database: Option<Vec<u8>>,
}

/// The capabilities that a greeting lists.
pub(super) fn greeting(payload: &[u8]) -> Option<u64> {
    let (version, rest) = payload.split_first()?;
    if *version != 10 {
        return None;
    }
    let (_, rest) = until_nul(rest)?;
    // Connection id, 8 bytes of the scramble, a filler.
    let rest = rest.get(13..)?;
    let low = rest.first_chunk::<2>().map(|it| u16::from_le_bytes(*it))?;
    // Character set and status.
    let rest = rest.get(5..).unwrap_or_default();
    let high = rest.first_chunk::<2>().map_or(0, |it| u16::from_le_bytes(*it));
    let mysql = u64::from(high) << 16 | u64::from(low);
    // Length of the scramble and 6 reserved bytes.
    let extended = rest.get(9..13).and_then(|it| it.first_chunk::<4>()).map_or(0, |it| u32::from_le_bytes(*it));
    let mariadb = if mysql & capability::MYSQL == 0 { u64::from(extended) << 32 } else { 0 };
    Some(mysql | mariadb)
}

/// What a client logs in with, of which `payload` is the beginning.
pub(super) fn login(payload: &[u8], length: u32, server: u64) -> Result<(u64, AskedNames), Ended> {
    let client = payload.first_chunk::<4>().map(|it| u32::from_le_bytes(*it)).ok_or(MALFORMED)?;
    let client = u64::from(client);
    if client & server & capability::SSL != 0 && length <= SSL_REQUEST {
        return Err(Some(PassthroughReason::Encrypted));
    }
    if client & capability::PROTOCOL_41 == 0 {
        return Err(Some(PassthroughReason::Unsupported));
    }
    let extended = payload.get(28..32).and_then(|it| it.first_chunk::<4>()).map_or(0, |it| u32::from_le_bytes(*it));
    let mariadb = if client & capability::MYSQL == 0 { u64::from(extended) << 32 } else { 0 };
    let agreed = (client | mariadb) & server;
    let (user, rest) = until_nul(payload.get(32..).ok_or(MALFORMED)?).ok_or(MALFORMED)?;
    let mut names = AskedNames { user: Some(shortened(user).to_vec()), database: None };
    if agreed & capability::CONNECT_WITH_DB != 0
        && let Some(rest) = behind_password(rest, agreed)
    {
        names.database = database(rest);
    }
    Ok((agreed, names))
}

/// What comes behind the answer to a scramble.
fn behind_password(mut bytes: &[u8], agreed: u64) -> Option<&[u8]> {
    let length = match agreed {
        agreed if agreed & capability::AUTH_LENGTH != 0 => length_encoded(&mut bytes)?,
        agreed if agreed & capability::SECURE_CONNECTION != 0 => {
            let (length, rest) = bytes.split_first()?;
            bytes = rest;
            u64::from(*length)
        }
        _ => return until_nul(bytes).map(|(_, rest)| rest),
    };
    bytes.get(usize::try_from(length).ok()?..)
}

/// A name up to a NUL, or to the end.
fn database(bytes: &[u8]) -> Option<Vec<u8>> {
    let name = until_nul(bytes).map_or(bytes, |(name, _)| name);
    (!name.is_empty()).then(|| shortened(name).to_vec())
}

/// What a COM_CHANGE_USER asks for, without the command itself.
pub(super) fn change_user(payload: &[u8], agreed: u64) -> Option<AskedNames> {
    let (user, rest) = until_nul(payload)?;
    // Its length is always one byte.
    let rest = behind_password(rest, agreed & !capability::AUTH_LENGTH);
    Some(AskedNames {
        user: Some(shortened(user).to_vec()),
        database: Some(rest.and_then(database).unwrap_or_default()),
    })
}
