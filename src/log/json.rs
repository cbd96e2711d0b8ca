//! The shape that log and access lines share as JSON: one object a line, which begins with `time`, `type` and `level`.
//!
//! One reader parses both: a key has the same meaning and type in all lines. `type` is `log` for what the process says, in
//! `message`, and `access` for a finished connection, whose end is in `reason`.

use std::fmt::{self, Display, Write as _};
use std::time::SystemTime;

use super::date;

/// An object that is being appended to a line. Writing to a String cannot fail.
pub(super) struct JsonObject<'l>(&'l mut String);

impl JsonObject<'_> {
    pub(super) fn begin<'l>(line: &'l mut String, time: SystemTime, kind: &str, level: &str) -> JsonObject<'l> {
        let _ = write!(line, r#"{{"time":"{}","type":"{kind}","level":"{level}""#, date::rfc3339_millis(time));
        JsonObject(line)
    }

    /// A member that is JSON already.
    pub(super) fn value(&mut self, name: &str, value: impl Display) {
        let _ = write!(self.0, ",\"{name}\":{value}");
    }

    pub(super) fn text(&mut self, name: &str, value: &str) {
        self.value(name, JsonText(value));
    }

    pub(super) fn end(self) {
        self.0.push('}');
    }
}

/// A text as a JSON string.
pub(super) struct JsonText<'t>(pub(super) &'t str);

impl Display for JsonText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        serde_json::Value::from(self.0).fmt(f)
    }
}
