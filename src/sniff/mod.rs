//! Recognisers of a connection's first bytes: TLS by its ClientHello (SNI, ALPN), HTTP/1, PostgreSQL, the PROXY protocol,
//! and which protocol it is at all.
//!
//! [`http`] and [`queries`] also watch a whole connection.
//!
//! Pure functions: all bytes so far come in; yes, no, or more comes out. Their caller keeps the deadline and passes the
//! bytes on unchanged. A constant `MAX_…` bounds the bytes that each of them inspects, counted from the first.

pub mod client_hello;
pub mod http;
pub mod postgres;
pub mod protocol;
pub mod proxy_protocol;
pub mod queries;

use std::num::NonZeroUsize;

/// A recogniser's answer for the bytes so far.
///
/// It does not depend on the portions in which the bytes come. Further bytes do not change a yes or a no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recognition<T, E> {
    /// The protocol is recognised.
    Yes(T),
    /// Undecided until this many bytes, counted from the first, have come: always more than there are, never more than
    /// the recogniser's limit.
    More(NonZeroUsize),
    /// Something else, and why: with the sender's name in front, the text is a sentence.
    No(E),
}

impl<T, E> Recognition<T, E> {
    /// More: with at least one byte in addition to the `len` there are.
    pub(crate) fn one_more(len: usize) -> Recognition<T, E> {
        Recognition::More(NonZeroUsize::MIN.saturating_add(len))
    }

    /// More: with at least `total` bytes; `len` are there.
    fn more(len: usize, total: usize) -> Recognition<T, E> {
        Recognition::More(
            NonZeroUsize::new(total)
                .map_or(NonZeroUsize::MIN, |total| total.max(NonZeroUsize::MIN.saturating_add(len))),
        )
    }
}

/// Bytes compared with an expected prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    /// All of the prefix is there.
    Fits,
    /// The bytes are a part of the prefix.
    FitsSoFar,
    /// The bytes differ.
    Differs,
}

impl Start {
    fn of(bytes: &[u8], wanted: &[u8]) -> Start {
        if bytes.starts_with(wanted) {
            Start::Fits
        } else if wanted.starts_with(bytes) {
            Start::FitsSoFar
        } else {
            Start::Differs
        }
    }
}
