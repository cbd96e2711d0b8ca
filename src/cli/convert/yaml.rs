//! A writer of YAML: block mappings and lists, with short mappings and lists on one line.

use std::net::{IpAddr, SocketAddr};

use tidegate::config::{literal, literal_bytes};

/// Longest line, in characters, of a list or mapping that is not broken.
const MAX_LINE: usize = 110;

/// A value.
#[derive(Clone, Debug)]
pub(super) enum Yaml {
    /// Text, quoted where it needs to be.
    Text(String),
    /// Bytes, in double quotes.
    Bytes(Vec<u8>),
    Number(u32),
    Bool(bool),
    /// Text that is not to be mistaken for a number or a boolean.
    Quoted(&'static str),
    List(Vec<Yaml>),
    Map(Vec<(String, Yaml)>),
    /// A value below a comment; in a list or a mapping.
    Noted(Vec<String>, Box<Yaml>),
}

impl Yaml {
    pub(super) fn text(text: impl Into<String>) -> Yaml {
        Yaml::Text(text.into())
    }

    /// A list of texts.
    pub(super) fn texts<T: AsRef<str>>(texts: &[T]) -> Yaml {
        Yaml::List(texts.iter().map(|text| Yaml::text(text.as_ref())).collect())
    }

    fn is_scalar(&self) -> bool {
        !matches!(self, Yaml::List(_) | Yaml::Map(_) | Yaml::Noted(..))
    }

    /// On one line; `None` if there is a comment in it.
    fn flow(&self) -> Option<String> {
        Some(match self {
            // What the other program means by a dollar, it has told before.
            Yaml::Text(text) => scalar(&literal(text)),
            Yaml::Bytes(bytes) => double_quoted_bytes(&literal_bytes(bytes)),
            Yaml::Number(number) => number.to_string(),
            Yaml::Bool(value) => value.to_string(),
            Yaml::Quoted(text) => double_quoted(text),
            Yaml::List(elements) => {
                let elements: Option<Vec<String>> = elements.iter().map(Yaml::flow).collect();
                format!("[{}]", elements?.join(", "))
            }
            Yaml::Map(entries) if entries.is_empty() => "{}".to_owned(),
            Yaml::Map(entries) => {
                let entry = |(key, value): &(String, Yaml)| Some(format!("{}: {}", scalar(key), value.flow()?));
                let entries: Option<Vec<String>> = entries.iter().map(entry).collect();
                format!("{{ {} }}", entries?.join(", "))
            }
            Yaml::Noted(..) => return None,
        })
    }
}

/// Writes the entries of a mapping.
pub(super) fn write_map(out: &mut String, entries: &[(String, Yaml)], indent: usize) {
    for (key, value) in entries {
        let value = notes(out, value, indent);
        pad(out, indent);
        out.push_str(&scalar(key));
        out.push(':');
        nested(out, value, indent, scalar(key).len() + 2);
    }
}

/// Writes a value behind a key or a dash, on the same line or below.
fn nested(out: &mut String, value: &Yaml, indent: usize, used: usize) {
    // Sections of sections are easier to read below each other.
    let is_short = |flow: &String| indent + used + flow.chars().count() <= MAX_LINE;
    let is_flat = match value {
        Yaml::Map(entries) => entries.iter().all(|(_, value)| depth(value) <= 1),
        Yaml::List(elements) => elements.iter().all(Yaml::is_scalar),
        _ => true,
    };
    match (value.flow(), value) {
        (Some(flow), _) if is_flat && is_short(&flow) || value.is_scalar() => {
            out.push(' ');
            out.push_str(&flow);
            out.push('\n');
        }
        (_, Yaml::List(elements)) => {
            out.push('\n');
            write_list(out, elements, indent + 2);
        }
        (_, Yaml::Map(entries)) => {
            out.push('\n');
            write_map(out, entries, indent + 2);
        }
        // A scalar has a flow form, and `notes` has taken comments off.
        _ => out.push('\n'),
    }
}

/// Writes the elements of a list. A mapping with a section or a comment in it begins beside its dash.
pub(super) fn write_list(out: &mut String, elements: &[Yaml], indent: usize) {
    for element in elements {
        let element = notes(out, element, indent);
        pad(out, indent);
        out.push('-');
        match element {
            Yaml::Map(entries) if !is_line(element, indent) => {
                let mut inner = String::new();
                write_map(&mut inner, entries, indent + 2);
                // The first line is indented by as much as the dash takes.
                out.push(' ');
                out.push_str(inner.trim_start());
            }
            _ => nested(out, element, indent, 2),
        }
    }
}

/// Whether a mapping of a list fits on one line.
fn is_line(map: &Yaml, indent: usize) -> bool {
    let Yaml::Map(entries) = map else { return true };
    let is_flat = entries.iter().all(|(_, value)| depth(value) <= 1);
    is_flat && map.flow().is_some_and(|flow| indent + 2 + flow.chars().count() <= MAX_LINE)
}

fn depth(value: &Yaml) -> usize {
    match value {
        Yaml::List(elements) => 1 + elements.iter().map(depth).max().unwrap_or(0),
        Yaml::Map(entries) => 1 + entries.iter().map(|(_, value)| depth(value)).max().unwrap_or(0),
        Yaml::Noted(..) => 9,
        _ => 0,
    }
}

/// Writes the comment above a value, and returns the value.
fn notes<'y>(out: &mut String, value: &'y Yaml, indent: usize) -> &'y Yaml {
    let Yaml::Noted(notes, value) = value else { return value };
    for note in notes {
        comment(out, note, indent);
    }
    value
}

/// Writes a comment, broken at spaces.
pub(super) fn comment(out: &mut String, text: &str, indent: usize) {
    let text: String = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    let mut line = String::new();
    for word in text.split(' ') {
        if !line.is_empty() && indent + 3 + line.chars().count() + word.chars().count() > MAX_LINE {
            pad(out, indent);
            out.push_str(&format!("# {line}\n"));
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    pad(out, indent);
    out.push_str(format!("# {line}").trim_end());
    out.push('\n');
}

fn pad(out: &mut String, indent: usize) {
    out.extend(std::iter::repeat_n(' ', indent));
}

/// Text as a plain scalar where every reader of YAML, 1.1 or 1.2, takes it for that text; otherwise in double quotes.
fn scalar(text: &str) -> String {
    let plain_letter = |letter: char| letter.is_ascii_alphanumeric() || "._/@%+:*-".contains(letter);
    let is_plain = text.starts_with(|letter: char| letter.is_ascii_alphanumeric() || letter == '/' || letter == '_')
        && text.chars().all(plain_letter)
        && !text.ends_with(':')
        && !is_word(text)
        && (!is_number(text) || is_address(text));
    if is_plain { text.to_owned() } else { double_quoted(text) }
}

/// Words that are a boolean or null, in YAML 1.1 or 1.2.
fn is_word(text: &str) -> bool {
    let words = ["true", "false", "yes", "no", "on", "off", "y", "n", "null"];
    words.contains(&text.to_ascii_lowercase().as_str())
}

/// What some reader takes for a number, a date or a time: 12, 1_000, 0x1f, 1e5, 1:30, 2024-01-01.
fn is_number(text: &str) -> bool {
    let hex = text.starts_with("0x") || text.starts_with("0o") || text.starts_with("0b");
    text.starts_with(|letter: char| letter.is_ascii_digit())
        && (hex || text.chars().all(|letter| letter.is_ascii_digit() || "_:.+-eE".contains(letter)))
}

/// Addresses and ranges of statuses, which no reader takes for numbers.
fn is_address(text: &str) -> bool {
    let is_range = |(first, last): (&str, &str)| {
        [first, last].iter().all(|part| part.len() == 3 && part.bytes().all(|byte| byte.is_ascii_digit()))
    };
    text.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv4())
        || text.parse::<SocketAddr>().is_ok_and(|address| address.is_ipv4())
        || text.split_once('-').is_some_and(is_range)
}

fn double_quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            ' '..='~' => quoted.push(letter),
            letter if letter.is_alphanumeric() => quoted.push(letter),
            letter if u32::from(letter) <= 0xffff => quoted.push_str(&format!("\\u{:04x}", u32::from(letter))),
            letter => quoted.push_str(&format!("\\U{:08x}", u32::from(letter))),
        }
    }
    quoted.push('"');
    quoted
}

/// Bytes as tidegate reads them: `\xNN` is one byte.
fn double_quoted_bytes(bytes: &[u8]) -> String {
    let mut quoted = String::from("\"");
    for byte in bytes {
        match byte {
            b'"' | b'\\' => quoted.extend(['\\', char::from(*byte)]),
            b'\n' => quoted.push_str("\\n"),
            b'\r' => quoted.push_str("\\r"),
            b' '..=b'~' => quoted.push(char::from(*byte)),
            _ => quoted.push_str(&format!("\\x{byte:02x}")),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use saphyr_parser::{Event, Parser, ScalarStyle, StrInput};

    use super::*;

    /// The scalars of a document, and whether each is plain.
    fn scalars(text: &str) -> Vec<(String, bool)> {
        let mut parser = Parser::new(StrInput::new(text));
        let mut found = Vec::new();
        while let Some(event) = parser.next_event() {
            if let (Event::Scalar(text, style, ..), _) = event.unwrap() {
                found.push((text.to_string(), style == ScalarStyle::Plain));
            }
        }
        found
    }

    #[test]
    fn what_readers_take_for_something_else_is_quoted() {
        for text in [
            "on",
            "Off",
            "yes",
            "N",
            "null",
            "~",
            "",
            "12",
            "1_000",
            "0x1f",
            "1e5",
            "1:2",
            "22:22:22",
            "2024-01-01",
            "1.2",
            "*.x",
            "[::1]:80",
            "::",
            "a: b",
            "a #b",
            "a:",
            "- a",
            "&a",
            "%a",
            "@a",
            "a,b",
            "{",
            "é",
        ] {
            assert!(scalar(text).starts_with('"'), "{text}: {}", scalar(text));
        }
        for text in [
            "web-1",
            "10.0.0.1",
            "10.0.0.1:80",
            "db.example:5432",
            "/etc/x.pem",
            "200-399",
            "5s",
            "unix:/run/a.sock",
            "h2",
            "http/1.1",
        ] {
            assert_eq!(scalar(text), text);
        }
    }

    proptest! {
        #[test]
        fn every_text_is_read_back(texts in proptest::collection::vec("[ -~\\t\\n\\r\u{80}-\u{2fff}\u{1f600}]{0,40}", 1..6)) {
            let key = |text: &String| (format!("k{text}"), Yaml::text(text.clone()));
            let map: Vec<_> = texts.iter().map(key).collect();
            let mut out = String::new();
            write_map(&mut out, &[("list".to_owned(), Yaml::List(vec![Yaml::Map(map), Yaml::texts(&texts)]))], 0);
            let read: Vec<String> = scalars(&out).into_iter().map(|(text, _)| text).collect();
            let mut expected = vec!["list".to_owned()];
            expected.extend(texts.iter().flat_map(|text| [format!("k{text}"), literal(text)]));
            expected.extend(texts.iter().map(|text| literal(text)));
            prop_assert_eq!(read, expected, "{}", out);
        }
    }
}
