//! Pseudo-random data that needs no memory: a seed instead of a file, a digest instead of a copy.

use std::io::{self, Read, Write};

use fastrand::Rng;
use sha2::{Digest, Sha256};

/// What was sent or received: how many bytes, and their SHA-256.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
}

/// Adds up bytes on their way.
#[derive(Default)]
pub(crate) struct Summing {
    bytes: u64,
    hash: Sha256,
}

impl Summing {
    pub(crate) fn add(&mut self, data: &[u8]) {
        self.bytes += data.len() as u64;
        self.hash.update(data);
    }

    pub(crate) fn sum(self) -> Sum {
        let sha256 = self.hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Sum { bytes: self.bytes, sha256 }
    }
}

/// Writes `bytes` bytes made from `seed`, in writes of `chunk(rng)` bytes.
pub(crate) fn send_in(
    to: &mut impl Write,
    seed: u64,
    bytes: u64,
    mut chunk: impl FnMut(&mut Rng) -> usize,
) -> io::Result<Sum> {
    let mut rng = Rng::with_seed(seed);
    let mut summing = Summing::default();
    let mut buffer = Vec::new();
    let mut left = bytes;
    while left > 0 {
        let size = chunk(&mut rng).min(usize::try_from(left).unwrap_or(usize::MAX));
        buffer.resize(size, 0);
        rng.fill(&mut buffer);
        to.write_all(&buffer)?;
        summing.add(&buffer);
        left -= size as u64;
    }
    Ok(summing.sum())
}

/// Writes `bytes` bytes made from `seed`.
pub(crate) fn send(to: &mut impl Write, seed: u64, bytes: u64) -> io::Result<Sum> {
    send_in(to, seed, bytes, |_| 128 * 1024)
}

/// Reads until the end of the stream.
pub(crate) fn receive(from: &mut impl Read) -> io::Result<Sum> {
    let mut summing = Summing::default();
    let mut buffer = vec![0; 128 * 1024];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(summing.sum()),
            count => summing.add(&buffer[..count]),
        }
    }
}
