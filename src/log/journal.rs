//! Priorities for journald: a prefix of each text line on stderr, where stderr is a stream of the journal.

use std::env;
use std::fmt;
use std::io;

use rustix::fs::fstat;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::registry::LookupSpan;

/// Whether stderr goes to the journal: JOURNAL_STREAM has its device and inode (systemd.exec(5)). A process that redirects
/// stderr inherits the variable, and not the stream.
pub(super) fn is_stderr() -> bool {
    let Some((device, inode)) = env::var("JOURNAL_STREAM").ok().and_then(|text| stream(&text)) else { return false };
    fstat(io::stderr()).is_ok_and(|stderr| (stderr.st_dev, stderr.st_ino) == (device, inode))
}

fn stream(text: &str) -> Option<(u64, u64)> {
    let (device, inode) = text.split_once(':')?;
    Some((device.parse().ok()?, inode.parse().ok()?))
}

/// The prefix of a line of this level: `<3>` is err, `<4>` warning, `<6>` info, `<7>` debug (sd-daemon(3)).
pub(super) fn prefix(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        Level::DEBUG | Level::TRACE => "<7>",
    }
}

/// Appends one entry of the journal. It takes each line for an entry, so that a line break is written as `\n`.
pub(super) fn entry(line: &mut String, level: Level, text: &str) {
    line.push_str(prefix(level));
    for (index, part) in text.lines().enumerate() {
        if index > 0 {
            line.push_str("\\n");
        }
        line.push_str(part);
    }
    line.push('\n');
}

/// A format with the priority before each line.
pub(super) struct JournalFormat<F>(pub(super) F);

impl<S, N, F> FormatEvent<S, N> for JournalFormat<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'w> FormatFields<'w> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut text = String::new();
        self.0.format_event(context, Writer::new(&mut text), event)?;
        let mut line = String::with_capacity(text.len() + prefix(Level::INFO).len());
        entry(&mut line, *event.metadata().level(), &text);
        writer.write_str(&line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_is_read_as_device_and_inode() {
        assert_eq!(stream("8:1234"), Some((8, 1234)));
        for wrong in ["", ":", "8", "8:", ":8", "8:x", "8:1:2", "-1:2"] {
            assert_eq!(stream(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn entry_is_one_line_with_the_priority_of_its_level() {
        for (level, expected) in [
            (Level::ERROR, "<3>"),
            (Level::WARN, "<4>"),
            (Level::INFO, "<6>"),
            (Level::DEBUG, "<7>"),
            (Level::TRACE, "<7>"),
        ] {
            let mut line = String::new();
            entry(&mut line, level, "a\nb\r\n\n c\n");
            assert_eq!(line, format!("{expected}a\\nb\\n\\n c\n"));
        }
    }
}
