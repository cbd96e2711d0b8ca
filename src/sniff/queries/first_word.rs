//! The first word of a statement of SQL, over its bytes as they come.

#![forbid(unsafe_code)]

use crate::stats::queries::{QueryProtocol, StatementKind};

/// Letters of the longest first word that is counted.
const MAX_WORD: usize = 12;

/// Looks for the first word behind white space, comments and opening parentheses.
#[derive(Clone, Copy, Debug)]
pub(super) struct FirstWord {
    word: [u8; MAX_WORD],
    /// Letters so far, those beyond the longest word included once.
    len: u8,
    scan: Scan,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scan {
    /// Before the word.
    Before,
    /// Behind a slash, which may begin a comment.
    Slash,
    /// Behind a slash and a star: with `!` the text is no comment to MySQL, nor with `M!` to MariaDB.
    CommentBegins,
    /// The version behind `/*!`.
    Version,
    /// In a comment, and whether its last byte is a star; how many lie around it, as PostgreSQL nests them.
    Comment {
        star: bool,
        slash: bool,
        around: u8,
    },
    /// Behind a hyphen, which may begin a comment.
    Hyphen,
    /// In a comment up to the end of the line.
    Line,
    Word,
    Done,
}

impl FirstWord {
    pub(super) fn new() -> FirstWord {
        FirstWord { word: [0; MAX_WORD], len: 0, scan: Scan::Before }
    }

    /// Whether further bytes change nothing.
    pub(super) fn is_done(&self) -> bool {
        self.scan == Scan::Done
    }

    /// Takes the next bytes.
    pub(super) fn read(&mut self, bytes: &[u8], protocol: QueryProtocol) {
        for &byte in bytes {
            if self.scan == Scan::Done {
                return;
            }
            self.scan = self.next(byte, protocol);
        }
    }

    fn next(&mut self, byte: u8, protocol: QueryProtocol) -> Scan {
        let is_mysql = protocol == QueryProtocol::Mysql;
        match self.scan {
            Scan::Before => match byte {
                b' ' | b'\t' | b'\n' | b'\r' | b'\x0b' | b'\x0c' | b'(' | b';' => Scan::Before,
                b'/' => Scan::Slash,
                b'-' => Scan::Hyphen,
                b'#' if is_mysql => Scan::Line,
                _ => self.letter(byte),
            },
            Scan::Slash if byte == b'*' => Scan::CommentBegins,
            Scan::Slash => Scan::Done,
            Scan::CommentBegins if is_mysql && byte == b'!' => Scan::Version,
            Scan::CommentBegins if is_mysql && byte == b'M' => Scan::CommentBegins,
            Scan::CommentBegins => self.comment(byte, (false, false), 0, is_mysql),
            Scan::Version if byte.is_ascii_digit() => Scan::Version,
            Scan::Version => {
                self.scan = Scan::Before;
                self.next(byte, protocol)
            }
            Scan::Comment { star, slash, around } => self.comment(byte, (star, slash), around, is_mysql),
            Scan::Hyphen if byte == b'-' => Scan::Line,
            Scan::Hyphen => Scan::Done,
            Scan::Line if byte == b'\n' => Scan::Before,
            Scan::Line => Scan::Line,
            Scan::Word => self.letter(byte),
            Scan::Done => Scan::Done,
        }
    }

    fn comment(&self, byte: u8, (star, slash): (bool, bool), around: u8, is_mysql: bool) -> Scan {
        match byte {
            b'/' if star => match around.checked_sub(1) {
                Some(around) => Scan::Comment { star: false, slash: false, around },
                None => Scan::Before,
            },
            b'*' if slash && !is_mysql => match around.checked_add(1) {
                Some(around) => Scan::Comment { star: false, slash: false, around },
                None => Scan::Done,
            },
            _ => Scan::Comment { star: byte == b'*', slash: byte == b'/', around },
        }
    }

    fn letter(&mut self, byte: u8) -> Scan {
        if !byte.is_ascii_alphanumeric() && byte != b'_' {
            return Scan::Done;
        }
        let Some(place) = self.word.get_mut(usize::from(self.len)) else {
            // Longer than each that is counted.
            self.len = 0;
            return Scan::Done;
        };
        *place = byte;
        self.len += 1;
        Scan::Word
    }

    /// The statement with this first word.
    pub(super) fn statement(&self, protocol: QueryProtocol) -> StatementKind {
        protocol.statement(self.word.get(..usize::from(self.len)).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(text: &str, protocol: QueryProtocol) -> &'static str {
        let mut whole = FirstWord::new();
        whole.read(text.as_bytes(), protocol);
        let mut single = FirstWord::new();
        text.as_bytes().iter().for_each(|byte| single.read(&[*byte], protocol));
        assert_eq!((whole.word, whole.len, whole.scan), (single.word, single.len, single.scan));
        protocol.statement_name(whole.statement(protocol))
    }

    #[test]
    fn first_word_is_behind_space_comments_and_parentheses() {
        for (text, word) in [
            ("select 1", "SELECT"),
            ("SELECT", "SELECT"),
            (" \t\r\n((select 1) union select 2)", "SELECT"),
            (";; begin;", "BEGIN"),
            ("/* a * b / c **/ Update t", "UPDATE"),
            ("/**/insert into t", "INSERT"),
            ("-- delete\n--\n delete from t", "DELETE"),
            ("insert(1)", "INSERT"),
            ("commit;", "COMMIT"),
            ("with\na as (select 1) select", "WITH"),
            ("selects 1", "other"),
            ("select_1", "other"),
            ("transmogrification of", "other"),
            ("", "other"),
            ("/* select", "other"),
            ("/select", "other"),
            ("-1 select", "other"),
            ("\"select\"", "other"),
            ("\u{e9}select", "other"),
        ] {
            assert_eq!(first(text, QueryProtocol::Postgres), word, "{text}");
            assert_eq!(first(text, QueryProtocol::Mysql), word, "{text}");
        }
    }

    #[test]
    fn comments_are_those_of_the_protocol() {
        for (text, postgres, mysql) in [
            ("/* /* */ select */ insert", "INSERT", "SELECT"),
            ("/*!40000 alter table t */", "other", "ALTER"),
            ("/*! insert */ into", "other", "INSERT"),
            ("/*M!100100 select 1 */", "other", "SELECT"),
            ("# select\ninsert", "other", "INSERT"),
        ] {
            let seen = [QueryProtocol::Postgres, QueryProtocol::Mysql].map(|protocol| first(text, protocol));
            assert_eq!(seen, [postgres, mysql], "{text}");
        }
    }
}
