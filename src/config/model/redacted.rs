//! Secrets, and what may contain one.

use std::fmt;

use serde::{Serialize, Serializer};

/// Placeholder of a redacted value.
pub const HIDDEN: &str = "(not shown)";

/// A value whose `Debug` and serialized form are [`HIDDEN`]. Without `Display`, each use in a text has to call
/// [`reveal`](Redacted::reveal).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Redacted<T>(T);

impl<T> Redacted<T> {
    /// The value itself.
    pub fn reveal(&self) -> &T {
        &self.0
    }
}

impl<T> From<T> for Redacted<T> {
    fn from(value: T) -> Redacted<T> {
        Redacted(value)
    }
}

impl<T> fmt::Debug for Redacted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl<T> Serialize for Redacted<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(HIDDEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_is_in_no_output() {
        let value = Redacted::from("s3cret".to_owned());
        assert_eq!(format!("{value:?} {:?}", Some(&value)), format!("{HIDDEN} Some({HIDDEN})"));
        assert_eq!(serde_json::to_value(&value).unwrap(), HIDDEN);
        assert_eq!(value.reveal(), "s3cret");
    }
}
