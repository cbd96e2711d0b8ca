//! `admin.state_file`: the overlay on disk.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::overlay::Overlay;

/// Version of the format.
const VERSION: u32 = 1;
/// The largest file that is read, in bytes: the changes of every backend there can be.
const MAX_FILE: u64 = 16 * 1024 * 1024;

#[derive(Serialize, Deserialize)]
struct StateFile {
    version: u32,
    #[serde(flatten)]
    overlay: Overlay,
}

/// Reads an overlay; that of a file that does not exist is empty.
///
/// # Errors
/// The file cannot be read, or is of another version. It is to be left alone then.
pub fn read(path: &Path) -> Result<Overlay, String> {
    let fault = |error: &dyn std::fmt::Display| format!("{} cannot be read: {error}", path.display());
    let text = match fs::metadata(path) {
        // Reading another one could wait for ever, or never end.
        Ok(metadata) if !metadata.is_file() => return Err(fault(&"it is no regular file")),
        Ok(metadata) if metadata.len() > MAX_FILE => return Err(fault(&"it is larger than 16 MiB")),
        _ => match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Overlay::default()),
            Err(error) => return Err(fault(&error)),
        },
    };
    let state: StateFile = serde_json::from_str(&text).map_err(|error| fault(&error))?;
    match state.version {
        VERSION => Ok(state.overlay),
        other => Err(fault(&format_args!("version {other}; this program writes version {VERSION}"))),
    }
}

/// Replaces the file: after a crash there is the old one or the new one, and nothing in between.
///
/// # Errors
/// Those of the file system, with the path.
pub fn write(path: &Path, overlay: &Overlay) -> Result<(), String> {
    let temporary = temporary(path);
    replace(path, &temporary, overlay).map_err(|error| {
        // An incomplete file is of no use.
        let _ = fs::remove_file(&temporary);
        format!("{} cannot be written: {error}", path.display())
    })
}

fn temporary(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    // Always the same: what a crash has left is replaced.
    name.push(".tmp");
    path.with_file_name(name)
}

fn replace(path: &Path, temporary: &Path, overlay: &Overlay) -> io::Result<()> {
    let state = StateFile { version: VERSION, overlay: overlay.lasting() };
    let text = serde_json::to_vec_pretty(&state)?;
    // What a crash has left; a symbolic link of another user must not lead elsewhere.
    match fs::remove_file(temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::create_new(temporary)?;
    file.write_all(&text)?;
    file.sync_all()?;
    fs::rename(temporary, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_what_is_no_state_is_left_alone() {
        let folder = std::env::temp_dir().join(format!("tidegate-state-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("state.json");
        assert_eq!(read(&path), Ok(Overlay::default()), "there is none yet");
        let text = r#"{"pools":{"p":{"backends":{"a":{"removed":"127.0.0.1:1"}}}}}"#;
        let overlay: Overlay = serde_json::from_str(text).unwrap();
        write(&path, &overlay).unwrap();
        assert_eq!(read(&path), Ok(overlay));
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "no temporary file is left");
        let elsewhere = folder.join("elsewhere");
        fs::write(&elsewhere, "other").unwrap();
        std::os::unix::fs::symlink(&elsewhere, temporary(&path)).unwrap();
        write(&path, &Overlay::default()).unwrap();
        assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "other", "a link is not followed");
        for broken in ["", "{", "[]", r#"{"version":2,"pools":{}}"#] {
            fs::write(&path, broken).unwrap();
            assert!(read(&path).unwrap_err().contains("cannot be read"), "{broken}");
        }
        assert!(write(&folder.join("nowhere/state.json"), &Overlay::default()).unwrap_err().contains("nowhere"));
        fs::remove_dir_all(&folder).unwrap();
    }
}
