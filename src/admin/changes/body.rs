//! Bodies of changes, as JSON. Unknown members are errors: a typo must not look like a success.

use std::num::NonZeroU32;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

use crate::config::model::{AdminState, ForcedHealth, ListenerState};
use crate::control::edit::{BackendValues, MAX_WEIGHT};

/// `PATCH` of a backend: a merge patch (RFC 7396). `null` is the default.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BackendPatch {
    /// Where a new one listens; only for `PUT`.
    pub(super) address: Option<String>,
    #[serde(default, deserialize_with = "given")]
    weight: Option<Option<u32>>,
    #[serde(default, deserialize_with = "given")]
    max_connections: Option<Option<u32>>,
    #[serde(default, deserialize_with = "given")]
    backup: Option<Option<bool>>,
    #[serde(default, deserialize_with = "given")]
    state: Option<Option<AdminState>>,
    #[serde(default, deserialize_with = "given")]
    forced: Option<Option<ForcedHealth>>,
}

impl BackendPatch {
    /// The values.
    ///
    /// # Errors
    /// A weight that is too large.
    pub(super) fn values(&self) -> Result<BackendValues, String> {
        let weight = self.weight.map(|weight| weight.unwrap_or(1));
        if let Some(weight) = weight.filter(|weight| *weight > MAX_WEIGHT) {
            return Err(format!("weight: {weight} is more than {MAX_WEIGHT}"));
        }
        Ok(BackendValues {
            weight,
            max_connections: self.max_connections.map(|max| max.and_then(NonZeroU32::new)),
            backup: self.backup.map(|backup| backup.unwrap_or(false)),
            state: self.state.map(Option::unwrap_or_default),
            forced: self.forced,
        })
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PoolPatch {
    pub(super) balance: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListenerPatch {
    pub(super) state: Option<ListenerState>,
    #[serde(default, deserialize_with = "given")]
    pub(super) max_connections: Option<Option<u32>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UpgradeBody {
    pub(super) binary: Option<std::path::PathBuf>,
}

/// `POST /api/servers`, as plain balancers have it. Members that they send beside are ignored.
#[derive(Debug, Deserialize)]
pub(super) struct ServerBody {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) weight: Option<u32>,
    pub(super) pool: Option<String>,
}

/// `PUT /api/servers/ID/weight`.
#[derive(Debug, Deserialize)]
pub(super) struct WeightBody {
    pub(super) weight: u32,
}

/// `PUT /api/algorithm`.
#[derive(Debug, Deserialize)]
pub(super) struct AlgorithmBody {
    pub(super) algorithm: String,
    pub(super) pool: Option<String>,
}

/// Tells a member that is `null` from one that is not there.
fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// Reads a body.
///
/// # Errors
/// What is wrong with it.
pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    // serde would take its values by their places.
    if body.trim_ascii_start().starts_with(b"[") {
        return Err("the body is not what this call takes: an array, not an object".to_owned());
    }
    let mut reader = serde_json::Deserializer::from_slice(body);
    let read = serde_path_to_error::deserialize(&mut reader).map_err(|error| match error.path().to_string() {
        path if path == "." => error.inner().to_string(),
        path => format!("{path}: {}", error.inner()),
    });
    let read = read.and_then(|value| reader.end().map(|()| value).map_err(|error| error.to_string()));
    read.map_err(|error| format!("the body is not what this call takes: {error}"))
}
