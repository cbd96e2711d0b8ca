//! Private authorities as people make them with openssl: certificates of version 1, self-signed ones as their own `ca`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::backend::Backend;
use crate::support::postgres::Postgres;
use crate::support::process::{bound, require};
use crate::support::tidegate::Tidegate;
use crate::support::tls::s_client;

const GREETING: &str = "greetings from behind";
const HOST: &str = "dbhost.example";

/// A directory in which openssl works.
struct Workshop(tempfile::TempDir);

impl Workshop {
    /// With a root as the manual of PostgreSQL makes it (18.9.5, Creating Certificates).
    fn new() -> Workshop {
        require("openssl", "openssl");
        let workshop = Workshop(tempfile::tempdir().expect("a temporary directory"));
        workshop.root("root");
        workshop
    }

    fn root(&self, name: &str) {
        self.openssl(&["req", "-new", "-nodes", "-out", "csr", "-keyout", &key(name), "-subj", &format!("/CN={name}")]);
        fs::write(self.path("v3_ca"), "basicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign,cRLSign\n")
            .expect("write");
        let extensions = ["-extfile", "v3_ca", "-signkey", &key(name), "-out", &crt(name)];
        self.openssl(&[&["x509", "-req", "-in", "csr", "-days", "30"][..], &extensions].concat());
    }

    /// A certificate of version 1: no extensions, as by the same recipe.
    fn old(&self, name: &str, common_name: &str, root: &str) {
        let subject = format!("/CN={common_name}");
        self.openssl(&["req", "-new", "-nodes", "-out", "csr", "-keyout", &key(name), "-subj", &subject]);
        let authority = ["-CA", &crt(root), "-CAkey", &key(root), "-CAcreateserial"];
        self.openssl(&[&["x509", "-req", "-in", "csr", "-days", "30", "-out", &crt(name)][..], &authority].concat());
        let text = self.openssl(&["x509", "-in", &crt(name), "-noout", "-text"]);
        // From OpenSSL 3.2 on, the recipe makes version 3.
        assert!(text.contains("Version: 1 ") || !text.contains("X509v3 Subject Alternative Name"), "{text}");
    }

    /// A certificate that has signed itself, as `openssl req -x509` makes it: marked as an authority's.
    fn self_signed(&self, name: &str, common_name: &str) {
        let subject = format!("/CN={common_name}");
        let names = format!("subjectAltName=DNS:{common_name}");
        let made = ["req", "-x509", "-nodes", "-days", "30", "-out", &crt(name), "-keyout", &key(name)];
        self.openssl(&[&made[..], &["-subj", &subject, "-addext", &names]].concat());
    }

    /// A list of the root's with these on it.
    fn revoke(&self, revoked: &[&str]) -> PathBuf {
        let sections =
            "[ca]\ndefault_ca=x\n[x]\ndatabase=index\ndefault_md=sha256\ndefault_crl_days=30\ncrlnumber=number\n";
        fs::write(self.path("ca.cnf"), sections).expect("write");
        fs::write(self.path("index"), "").expect("write");
        // Lists with a number are of version 2.
        fs::write(self.path("number"), "01\n").expect("write");
        let signer = ["-config", "ca.cnf", "-cert", "root.crt", "-keyfile", "root.key"];
        for name in revoked {
            self.openssl(&[&["ca", "-revoke", &crt(name)][..], &signer].concat());
        }
        self.openssl(&[&["ca", "-gencrl", "-out", "list.crl"][..], &signer].concat());
        self.path("list.crl")
    }

    fn openssl(&self, arguments: &[&str]) -> String {
        let mut command: Command = bound("openssl", "KILL");
        let output = command.args(arguments).current_dir(self.0.path()).output().expect("openssl");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    fn cert(&self, name: &str) -> PathBuf {
        self.path(&crt(name))
    }

    fn key(&self, name: &str) -> PathBuf {
        self.path(&key(name))
    }
}

fn crt(name: &str) -> String {
    format!("{name}.crt")
}

fn key(name: &str) -> String {
    format!("{name}.key")
}

/// A listener of tidegate with the certificate `own`, in front of a backend that greets.
fn listener(workshop: &Workshop, own: &str, more: &str) -> (Tidegate, Backend) {
    let backend = Backend::named(GREETING);
    let tidegate = Tidegate::start(&format!(
        "listeners:\n\
         - {{ name: in, bind: \"127.0.0.1:0\", pool: p, tls: {{ certificates: [{{ cert: {}, key: {} }}], {more} }} }}\n\
         pools: [{{ name: p, backends: [{{ address: \"{}\" }}] }}]\n",
        workshop.cert(own).display(),
        workshop.key(own).display(),
        backend.place(),
    ));
    (tidegate, backend)
}

/// Whether openssl as a client gets what the backend says, when it shows this certificate.
fn is_served(tidegate: &Tidegate, workshop: &Workshop, shown: Option<&str>, version: &str) -> bool {
    let files = shown.map(|name| (workshop.cert(name), workshop.key(name)));
    let mut arguments = vec![version];
    if let Some((cert, key)) = &files {
        arguments.extend(["-cert", text(cert), "-key", text(key)]);
    }
    let (said, _) = s_client(&tidegate.at("in"), &arguments);
    said.contains(GREETING)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[test]
fn version_1_is_served_as_the_listeners_own() {
    let workshop = Workshop::new();
    workshop.old("server", HOST, "root");
    let (tidegate, _backend) = listener(&workshop, "server", "");
    for version in ["-tls1_2", "-tls1_3"] {
        let root = workshop.cert("root");
        let arguments = [version, "-CAfile", text(&root), "-verify_return_error", "-servername", HOST];
        let (said, _) = s_client(&tidegate.at("in"), &arguments);
        assert!(said.contains(GREETING), "{version}: {said}");
    }
}

#[test]
fn version_1_of_a_client_is_taken_where_its_authority_vouches_for_it() {
    let workshop = Workshop::new();
    workshop.root("other");
    workshop.old("server", HOST, "root");
    workshop.old("alice", "alice", "root");
    workshop.old("mallory", "alice", "other");
    // What alice has signed with her own certificate is not the root's.
    workshop.old("below", "alice", "alice");
    workshop.old("revoked", "bob", "root");
    let root = workshop.cert("root");
    let list = workshop.revoke(&["revoked"]);
    for crl in [String::new(), format!(", crl: {}", list.display())] {
        let auth = format!("client_auth: {{ mode: required, ca: {}{crl} }}", root.display());
        let (tidegate, _backend) = listener(&workshop, "server", &auth);
        for version in ["-tls1_2", "-tls1_3"] {
            assert!(is_served(&tidegate, &workshop, Some("alice"), version), "{version}{crl}");
            assert_eq!(is_served(&tidegate, &workshop, Some("revoked"), version), crl.is_empty(), "{version}{crl}");
            for stranger in [Some("mallory"), Some("below"), None] {
                assert!(!is_served(&tidegate, &workshop, stranger, version), "{stranger:?}, {version}{crl}");
            }
        }
        let why = if crl.is_empty() { "issued by an unknown authority" } else { "the certificate was revoked" };
        tidegate.wait_for_log(why, |line| line.text.contains(why));
    }
}

#[test]
fn a_self_signed_client_is_pinned_as_its_own_authority() {
    let workshop = Workshop::new();
    workshop.old("server", HOST, "root");
    for name in ["pinned", "same-name"] {
        workshop.self_signed(name, "device-7");
    }
    // Signed by the pinned one, which says that it is an authority.
    workshop.old("below", "device-8", "pinned");
    let auth = format!("client_auth: {{ mode: required, ca: {} }}", workshop.cert("pinned").display());
    let (tidegate, _backend) = listener(&workshop, "server", &auth);
    for version in ["-tls1_2", "-tls1_3"] {
        assert!(is_served(&tidegate, &workshop, Some("pinned"), version), "{version}");
        assert!(!is_served(&tidegate, &workshop, Some("same-name"), version), "{version}");
        assert!(is_served(&tidegate, &workshop, Some("below"), version), "{version}: it is an authority, too");
    }
}

/// psql through a pool with these rules, to a PostgreSQL that has this certificate.
fn psql_reaches(workshop: &Workshop, certificate: &str, cases: &[(String, bool)]) {
    let postgres = Postgres::with_tls_files(&workshop.cert(certificate), &workshop.key(certificate));
    for (rules, reached) in cases {
        let tidegate = Tidegate::start(&format!(
            "listeners: [{{ name: in, bind: \"127.0.0.1:0\", pool: p }}]\n\
             pools: [{{ name: p, backends: [{{ address: \"127.0.0.1:{}\" }}], tls: {{ starttls: postgres, {rules} }} }}]\n",
            postgres.port()
        ));
        let mut psql = postgres.psql(tidegate.at("in").tcp().port());
        psql.env("PGSSLMODE", "disable").args([
            "-X",
            "-At",
            "-c",
            "select ssl from pg_stat_ssl where pid = pg_backend_pid()",
        ]);
        let output = psql.output().expect("psql");
        let said = String::from_utf8_lossy(&output.stdout);
        let logs: Vec<String> = tidegate.logs().into_iter().map(|line| line.text).collect();
        assert_eq!(said.trim() == "t", *reached, "{certificate}, {rules}: {said} {logs:#?}");
    }
}

#[test]
fn backends_with_certificates_of_version_1_are_verified() {
    let workshop = Workshop::new();
    workshop.root("other");
    workshop.old("server", HOST, "root");
    let (root, other, own) = (workshop.cert("root"), workshop.cert("other"), workshop.cert("server"));
    let ca = |path: &Path, more: &str| format!("ca: {}, {more}", path.display());
    psql_reaches(
        &workshop,
        "server",
        &[
            (ca(&root, &format!("verify: full, server_name: {HOST}")), true),
            (ca(&root, "verify: full, server_name: other.example"), false),
            (ca(&root, "verify: ca"), true),
            (ca(&other, "verify: ca"), false),
            (ca(&other, &format!("verify: full, server_name: {HOST}")), false),
            // The certificate itself is a pin; its name counts all the same.
            (ca(&own, &format!("verify: full, server_name: {HOST}")), true),
            (ca(&own, "verify: full, server_name: other.example"), false),
            ("verify: off".to_owned(), true),
        ],
    );
}

#[test]
fn a_self_signed_backend_is_pinned_as_its_own_authority() {
    let workshop = Workshop::new();
    for name in ["server", "same-name"] {
        workshop.self_signed(name, HOST);
    }
    let pin = |name: &str, more: &str| format!("ca: {}, {more}", workshop.cert(name).display());
    psql_reaches(
        &workshop,
        "server",
        &[
            (pin("server", &format!("verify: full, server_name: {HOST}")), true),
            (pin("server", "verify: full, server_name: other.example"), false),
            (pin("server", "verify: ca"), true),
            (pin("same-name", "verify: ca"), false),
            (pin("same-name", &format!("verify: full, server_name: {HOST}")), false),
        ],
    );
}
