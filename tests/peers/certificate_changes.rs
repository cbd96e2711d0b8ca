//! Certificates that change on disk while connections come in.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use tempfile::TempDir;

use crate::support::authority::write_key;
use crate::support::backend::Backend;
use crate::support::client::Place;
use crate::support::tidegate::{Tidegate, forward};
use crate::support::tls::{Authority, Issued, Tls, read_all};
use crate::support::{DEADLINE, eventually, tell};

/// A listener whose certificate is at a place where the test changes it.
struct Served {
    tidegate: Tidegate,
    authority: Authority,
    _backend: Backend,
}

impl Served {
    /// With the files `tls.crt` and `tls.key` of the folder.
    fn new(authority: Authority, folder: &Path) -> Served {
        let backend = Backend::named("b");
        let (cert, key) = (folder.join("tls.crt"), folder.join("tls.key"));
        let tls = format!("tls: {{ certificates: [{{ cert: {}, key: {} }}] }}", cert.display(), key.display());
        let yaml = forward(backend.place(), &tls, "");
        let tidegate = Tidegate::start(&format!("admin: {{ bind: \"127.0.0.1:0\" }}\n{yaml}"));
        Served { tidegate, authority, _backend: backend }
    }

    fn place(&self) -> Place {
        self.tidegate.at("in")
    }

    fn count(&self, what: &str) -> usize {
        self.tidegate.count_logs(|line| line.text.contains(what))
    }

    /// Waits until there are so many log lines with this.
    fn wait_for(&self, what: &str, count: usize) {
        eventually(DEADLINE, &format!("{what}, {count} times"), || self.count(what) >= count);
    }

    fn serves(&self) -> CertificateDer<'static> {
        fetch(&self.place(), &self.authority.client()).expect("a handshake")
    }
}

const REPLACED: &str = "is replaced";
const REFUSED: &str = "a change is refused";

/// A whole connection, with a full handshake: the certificate it was served with.
fn fetch(place: &Place, config: &ClientConfig) -> std::io::Result<CertificateDer<'static>> {
    let client = Tls::try_connect(place, config, "a.example")?;
    assert_eq!(read_all(&client), "b");
    Ok(client.peer().expect("a certificate"))
}

/// A file takes the place of another at once.
fn replace(path: &Path, with: &Path) {
    let next = path.with_extension("next");
    fs::copy(with, &next).unwrap();
    fs::rename(next, path).unwrap();
}

fn put(folder: &Path, cert: &Issued, key: &Issued) {
    replace(&folder.join("tls.key"), &key.key);
    replace(&folder.join("tls.crt"), &cert.cert);
}

#[test]
fn a_hundred_replacements_under_load() {
    let authority = Authority::new();
    let [first, second, broken] = [(); 3].map(|()| authority.issue(&["a.example"]));
    let folder = TempDir::new().unwrap();
    put(folder.path(), &first, &first);
    let served = Served::new(authority, folder.path());

    let (over, seen) = (AtomicBool::new(false), Mutex::new(BTreeMap::<Vec<u8>, usize>::new()));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let got = fetch(&served.place(), &served.authority.client())
                        .inspect_err(|_| over.store(true, Ordering::Relaxed))
                        .expect("every handshake succeeds");
                    *seen.lock().unwrap().entry(got.to_vec()).or_default() += 1;
                }
            });
        }
        // The load ends with this thread, however it ends.
        let _ending = Ending(&over);
        for round in 1..=100 {
            let (next, current) = if round % 2 == 0 { (&first, &second) } else { (&second, &first) };
            if round % 25 == 0 {
                let refused = served.count(REFUSED);
                match round {
                    25 => put(folder.path(), &broken, &first),
                    50 => fs::write(folder.path().join("tls.crt"), "no certificate").unwrap(),
                    75 => fs::write(folder.path().join("tls.key"), &fs::read(&broken.key).unwrap()[..40]).unwrap(),
                    _ => replace(&folder.path().join("tls.key"), &broken.cert),
                }
                served.wait_for(REFUSED, refused + 1);
                assert!(served.serves() == current.der, "round {round}: the good one stays");
            }
            put(folder.path(), next, next);
            served.wait_for(REPLACED, round);
            assert!(served.serves() == next.der, "round {round}: the new one is in service");
        }
    });
    let seen = seen.into_inner().unwrap();
    let counts = [&first, &second].map(|issued| seen.get(issued.der.as_ref()).copied().unwrap_or_default());
    assert_eq!(seen.len(), 2, "one of the two, and nothing else");
    tell(&format!(
        "{} and {} handshakes with either certificate, while it was replaced 100 times",
        counts[0], counts[1]
    ));
    let ends = served.tidegate.access();
    assert!(ends.iter().all(|line| line.end() == "backend closed"), "no connection failed");
}

/// Sets its flag when it goes.
struct Ending<'f>(&'f AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Kubernetes keeps a secret's files behind a symbolic link, `..data`, and points that elsewhere.
#[test]
fn a_folder_that_is_swapped_by_a_symbolic_link() {
    let authority = Authority::new();
    let [first, second, third, broken] = [(); 4].map(|()| authority.issue(&["a.example"]));
    let folder = TempDir::new().unwrap();
    let version = |name: &str, cert: &Issued, key: &Issued| {
        let version = folder.path().join(name);
        fs::create_dir(&version).unwrap();
        fs::copy(&cert.cert, version.join("tls.crt")).unwrap();
        write_key(&version.join("tls.key"), &fs::read_to_string(&key.key).unwrap());
        symlink(name, folder.path().join("..data_tmp")).unwrap();
        fs::rename(folder.path().join("..data_tmp"), folder.path().join("..data")).unwrap();
    };
    version("..1", &first, &first);
    for name in ["tls.crt", "tls.key"] {
        symlink(Path::new("..data").join(name), folder.path().join(name)).unwrap();
    }
    let served = Served::new(authority, folder.path());
    assert!(served.serves() == first.der);

    version("..2", &second, &second);
    fs::remove_dir_all(folder.path().join("..1")).unwrap();
    served.wait_for(REPLACED, 1);
    assert!(served.serves() == second.der);

    version("..3", &broken, &second);
    fs::remove_dir_all(folder.path().join("..2")).unwrap();
    served.wait_for(REFUSED, 1);
    assert!(served.serves() == second.der, "the good one stays");

    version("..4", &third, &third);
    fs::remove_dir_all(folder.path().join("..3")).unwrap();
    served.wait_for(REPLACED, 2);
    assert!(served.serves() == third.der);
}

/// A certificate that is gone stays in service: somebody is about to write it anew.
#[test]
fn files_that_are_gone_for_a_while() {
    let authority = Authority::new();
    let [first, second] = [(); 2].map(|()| authority.issue(&["a.example"]));
    let folder = TempDir::new().unwrap();
    put(folder.path(), &first, &first);
    let served = Served::new(authority, folder.path());
    for name in ["tls.crt", "tls.key"] {
        fs::remove_file(folder.path().join(name)).unwrap();
    }
    served.wait_for(REFUSED, 1);
    assert!(served.serves() == first.der);
    let stand = || {
        let files = served.tidegate.view().tls_files.remove(0);
        (files.owner.to_string(), files.replaced, files.rejected, files.faults.len())
    };
    eventually(DEADLINE, "the stats port says that they are refused", || stand() == ("listener in".into(), 0, 1, 2));
    put(folder.path(), &second, &second);
    served.wait_for(REPLACED, 1);
    assert!(served.serves() == second.der);
    eventually(DEADLINE, "the stats port says that all is well", || stand() == ("listener in".into(), 1, 1, 0));
}
