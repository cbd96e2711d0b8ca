//! What a connection's first bytes are: pure recognisers, which get all the bytes so far and say yes, no, or more.
//! Who reads the bytes, under which deadline, and hands them on unchanged, is not their business.
//!
//! Each of them bounds what it looks at by a constant `LIMIT`, in bytes from the first.

pub mod client_hello;
pub mod http;
pub mod postgres;
pub mod proxy_protocol;

use std::num::NonZeroUsize;

/// What a recogniser says of the bytes so far.
///
/// The same bytes get the same answer in whatever portions they come, and once an answer is yes or no, further
/// bytes do not change it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict<T, E> {
    /// It is what was looked for.
    Yes(T),
    /// It may still be. There is no point in asking again before that many bytes, counted from the first, have come:
    /// always more than there are, never more than the recogniser's limit.
    More(NonZeroUsize),
    /// It is something else; why, for people: what it says is a sentence when who sent the bytes is put before it.
    No(E),
}

impl<T, E> Verdict<T, E> {
    /// More: with at least one byte in addition to the `len` there are.
    fn one_more(len: usize) -> Verdict<T, E> {
        Verdict::More(NonZeroUsize::MIN.saturating_add(len))
    }

    /// More: with at least `total` bytes; `len` are there.
    fn more(len: usize, total: usize) -> Verdict<T, E> {
        Verdict::More(
            NonZeroUsize::new(total)
                .map_or(NonZeroUsize::MIN, |total| total.max(NonZeroUsize::MIN.saturating_add(len))),
        )
    }
}

/// How bytes begin, compared with what they should begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    /// With all of it.
    Fits,
    /// With as much of it as there are bytes.
    FitsSoFar,
    /// With something else.
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
