//! Files in memory, by which another process gets what is too large for a packet (memfd_create(2)).

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, memfd_create};

/// Bytes of one that is read.
const MAX_FILE: u64 = 64 * 1024 * 1024;

/// One with these contents.
///
/// # Errors
/// Those of memfd_create(2), and no memory.
pub fn write(bytes: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(memfd_create("tidegate-upgrade", MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    Ok(file.into())
}

/// What is in one.
///
/// # Errors
/// It is larger than 64 MiB, or no file.
pub fn read(file: OwnedFd) -> io::Result<Vec<u8>> {
    let mut file = File::from(file);
    file.rewind()?;
    if file.metadata()?.len() > MAX_FILE {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "larger than 64 MiB"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_back_whole() {
        let bytes = vec![7; 1 << 20];
        assert_eq!(read(write(&bytes).unwrap()).unwrap(), bytes);
        let large = File::from(write(b"").unwrap());
        large.set_len(MAX_FILE + 1).unwrap();
        assert!(read(large.into()).is_err());
    }
}
