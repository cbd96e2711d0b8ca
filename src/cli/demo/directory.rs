//! A directory for the files of one demo, private to its user. It is removed at the end.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Names that are tried: another one than the first is needed where somebody has it already.
const MAX_TRIES: u32 = 100;

/// The directory. Dropped, it is removed with all that is in it.
#[derive(Debug)]
pub(super) struct DemoDirectory(PathBuf);

impl DemoDirectory {
    /// Makes one in `TMPDIR`, or in /tmp.
    ///
    /// # Errors
    /// Those of mkdir(2), or the path is too long for sockets in it, or not UTF-8.
    pub(super) fn create() -> io::Result<DemoDirectory> {
        DemoDirectory::create_in(&std::env::temp_dir())
    }

    fn create_in(parent: &Path) -> io::Result<DemoDirectory> {
        let failed = |error: io::Error| {
            let parent = parent.display();
            io::Error::new(error.kind(), format!("cannot make a directory in {parent}: {error}; set TMPDIR to another"))
        };
        // Paths in it are in a configuration and in commands, which are text.
        let parent = fs::canonicalize(parent).map_err(failed)?;
        if parent.to_str().is_none_or(|path| path.contains(char::is_control)) {
            return Err(failed(io::Error::other("its name is no printable text")));
        }
        for _ in 0..MAX_TRIES {
            let path = parent.join(format!("tidegate-demo-{:08x}", fastrand::u32(..)));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(DemoDirectory(path)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Err(failed(io::Error::from(io::ErrorKind::AlreadyExists)))
    }

    /// The path of a file in it.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a new file that only its owner can read.
    ///
    /// # Errors
    /// Those of open(2) and write(2).
    pub(super) fn write(&self, name: &str, text: &str) -> io::Result<PathBuf> {
        let path = self.path(name);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(|error| io::Error::new(error.kind(), format!("cannot write {}: {error}", path.display())))?;
        Ok(path)
    }
}

impl Drop for DemoDirectory {
    fn drop(&mut self) {
        // If that fails, the user sees what is left in the temporary directory.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn directory_is_its_owners_alone_and_gone_at_the_end() {
        let parent = tempfile::tempdir().unwrap();
        let directory = DemoDirectory::create_in(parent.path()).unwrap();
        let file = directory.write("a", "text").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&directory.0), mode(&file)), (0o700, 0o600));
        assert!(directory.write("a", "other").is_err(), "what is there is not replaced");
        drop(directory);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }

    #[test]
    fn directory_that_cannot_be_made_is_named() {
        let error = DemoDirectory::create_in(Path::new("/nowhere/at/all")).unwrap_err().to_string();
        assert!(error.contains("/nowhere/at/all") && error.contains("set TMPDIR"), "{error}");
    }
}
