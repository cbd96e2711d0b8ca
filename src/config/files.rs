//! Checks of the files that a configuration names, and the variables that it has in its values, behind the trait [`Files`].

mod country_database;
mod secret;

use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::{Component, Path, PathBuf};

pub use self::country_database::CountryDatabase;
pub use self::secret::{MAX_SECRET_FILE, SecretFile, parse_secret};
use super::model::CertificateFiles;
pub use super::report::Diagnostic;
use crate::net::interfaces;

/// Checks the files that a configuration names. Findings are reported at the line that names the file.
pub trait Files {
    /// A certificate chain and its key: usable, and a pair.
    fn certificate(&self, _files: &CertificateFiles) -> Vec<(Part, Diagnostic)> {
        Vec::new()
    }

    /// A file of CA certificates.
    fn authorities(&self, _path: &Path) -> Vec<Diagnostic> {
        Vec::new()
    }

    /// A file of certificate revocation lists.
    fn revocations(&self, _path: &Path) -> Vec<Diagnostic> {
        Vec::new()
    }

    /// The path of a log file.
    fn log(&self, _path: &Path) -> Vec<Diagnostic> {
        Vec::new()
    }

    /// A file with one secret.
    fn secret(&self, _path: &Path) -> Vec<Diagnostic> {
        Vec::new()
    }

    /// An MMDB file with countries.
    fn country_database(&self, _path: &Path) -> Vec<Diagnostic> {
        Vec::new()
    }

    /// The path of a unix socket.
    fn socket(&self, _path: &Path) -> Vec<Diagnostic> {
        Vec::new()
    }

    /// The canonical form of a path, by which two paths of one file compare equal.
    fn real(&self, path: &Path) -> PathBuf {
        plain(path)
    }

    /// Whether an address is local.
    fn is_own(&self, ip: IpAddr) -> bool {
        ip.to_canonical().is_loopback()
    }

    /// A variable of the environment.
    fn variable(&self, name: &str) -> Option<Vec<u8>> {
        std::env::var_os(name).map(OsString::into_encoded_bytes)
    }

    /// Whether a socket can be bound to an address: it is local, or the kernel permits non-local ones.
    fn can_bind(&self, _ip: IpAddr) -> bool {
        true
    }
}

/// Removes `.`, `..` and doubled slashes.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => drop(plain.pop()),
            other => plain.push(other),
        }
    }
    plain
}

/// Checks on this host, except those of TLS files.
pub mod host {
    use super::*;

    /// As [`Files::log`].
    pub fn log(path: &Path) -> Vec<Diagnostic> {
        folder(path).or_else(|| is_folder(path)).into_iter().collect()
    }

    /// As [`Files::socket`].
    pub fn socket(path: &Path) -> Vec<Diagnostic> {
        let taken = || {
            let kind = fs::symlink_metadata(path).ok()?.file_type();
            let hint = "a stale socket is replaced, other files are not: remove it, or choose another path";
            (!kind.is_socket()).then(|| error(format!("{} exists and is not a socket", path.display()), hint))
        };
        folder(path).or_else(taken).into_iter().collect()
    }

    /// As [`Files::secret`].
    pub fn secret(path: &Path) -> Vec<Diagnostic> {
        SecretFile::read(path).map_or_else(|error| vec![error], |file| file.exposure(path).into_iter().collect())
    }

    /// As [`Files::country_database`].
    pub fn country_database(path: &Path) -> Vec<Diagnostic> {
        CountryDatabase::read(path).err().into_iter().collect()
    }

    /// As [`Files::real`].
    pub fn real(path: &Path) -> PathBuf {
        let folder = path.parent().and_then(|folder| fs::canonicalize(folder).ok());
        folder.zip(path.file_name()).map_or_else(|| plain(path), |(folder, name)| folder.join(name))
    }

    /// As [`Files::is_own`].
    pub fn is_own(ip: IpAddr) -> bool {
        interfaces::is_own(ip)
    }

    /// As [`Files::can_bind`].
    pub fn can_bind(ip: IpAddr) -> bool {
        interfaces::can_bind(ip)
    }

    /// What is wrong with the parent directory of a file that is to be created.
    fn folder(path: &Path) -> Option<Diagnostic> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty())?;
        let name = folder.display();
        match fs::metadata(folder) {
            Ok(metadata) if metadata.is_dir() => None,
            Ok(_) => Some(error(format!("{name} is a file, not a directory"), "choose another path")),
            // The user who checks may lack permissions that the user who runs has.
            Err(cause) if cause.kind() == io::ErrorKind::PermissionDenied => None,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                Some(error(format!("there is no directory {name}"), format!("create it: mkdir -p {name}")))
            }
            Err(cause) => Some(error(format!("{name} cannot be used: {cause}"), "choose another path")),
        }
    }

    fn is_folder(path: &Path) -> Option<Diagnostic> {
        let is_folder = fs::metadata(path).is_ok_and(|metadata| metadata.is_dir());
        is_folder.then(|| error(format!("{} is a directory", path.display()), "write the path of a file in it"))
    }

    fn error(message: String, hint: impl Into<String>) -> Diagnostic {
        Diagnostic::new(message).hint(hint)
    }
}

/// Which file of a [`CertificateFiles`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Cert,
    Key,
}

/// Accepts every file unread.
#[derive(Clone, Copy, Debug)]
pub struct Unread;

impl Files for Unread {}
