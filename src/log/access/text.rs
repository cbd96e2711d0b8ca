//! Values on text lines.

use std::fmt;
use std::time::Duration;

/// Whole milliseconds; -1 for a stage that was not reached.
pub(super) struct WholeMillis(pub(super) Option<Duration>);

impl fmt::Display for WholeMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(took) => took.as_millis().fmt(f),
            None => f.write_str("-1"),
        }
    }
}

/// A name as one word: white space, quotes and slashes become `_`, so that fields stay apart. JSON needs no such thing.
pub(super) fn push_word(line: &mut String, name: &str) {
    let fits = |c: char| !c.is_control() && !c.is_whitespace() && c != '"' && c != '/';
    line.extend(name.chars().map(|c| if fits(c) { c } else { '_' }));
}

/// The inside of a quoted value, escaped so that neither the value nor the line ends early.
pub(super) fn push_quoted(line: &mut String, value: &str) {
    for c in value.chars() {
        match c {
            '"' | '\\' => line.extend(['\\', c]),
            c if c.is_control() => line.extend(c.escape_default()),
            c => line.push(c),
        }
    }
}
