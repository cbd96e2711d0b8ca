//! What the manual's examples say is so.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Output};

use tidegate::stats::termination::Termination;

use crate::support::authority::Authority;
use crate::support::backend::{Backend, Dead};
use crate::support::client::{connect, expect};
use crate::support::docs::{Block, blocks, blocks_of, command, manual, quote, root, the_yaml, yaml};
use crate::support::mmdb::Mmdb;
use crate::support::process::require;
use crate::support::tidegate::Tidegate;

fn private(path: &Path, text: &[u8]) {
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text)).expect("write the file");
}

/// `tidegate check` of this text under its name, in a directory that has `certs`.
fn check(yaml: &str) -> Output {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let name = yaml.lines().next().and_then(|line| line.strip_prefix("# ")).expect("the name in the first line");
    // Files of an installation are here as stubs.
    let here = format!("{}/", folder.path().display());
    let mut yaml = yaml.replace("/etc/tidegate-token/", &here).replace("/usr/share/GeoIP/", &here);
    for name in ["pg-password", "mysql-password"] {
        yaml = yaml.replace(&format!("/etc/tidegate/{name}"), &format!("{here}{name}"));
        private(&folder.path().join(name), b"secret\n");
    }
    let countries = Mmdb::new(true).country("192.0.2.0/24", "DE").to_bytes();
    fs::write(folder.path().join("GeoLite2-Country.mmdb"), countries).expect("write the database");
    fs::write(folder.path().join(name), yaml).expect("write the configuration");
    private(&folder.path().join("token"), b"secret\n");
    let certs = folder.path().join("certs");
    fs::create_dir(&certs).expect("a directory");
    fs::copy(root().join("certs/dev.pem"), certs.join("dev.pem")).expect("copy");
    let key = fs::read(root().join("certs/dev.key")).expect("the key");
    // Git does not keep that only its owner may read it.
    private(&certs.join("dev.key"), &key);
    fs::copy(Authority::new().file(), certs.join("ca.pem")).expect("copy");
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(["check", "--config", name]).current_dir(folder.path()).output().expect("tidegate check")
}

/// What `check` reads: of a Kubernetes manifest, the configuration in its ConfigMap.
fn configuration(example: &str) -> String {
    let Some((_, indented)) = example.split_once("  config.yaml: |\n") else { return example.to_owned() };
    let lines = indented.lines().map_while(|line| line.strip_prefix("    "));
    format!("# kubernetes.yaml\n{}\n", lines.collect::<Vec<_>>().join("\n"))
}

/// A check that MariaDB or MySQL counts, which the recipe explains; `check` cannot know the server's settings.
const WARNED: [&str; 0] = [];

#[test]
fn every_example_can_be_used() {
    let examples = blocks_of("yaml");
    assert!(examples.len() >= 20, "{}", examples.len());
    for Block { page, text, .. } in examples {
        let yaml = configuration(&text);
        let output = check(&yaml);
        let told = String::from_utf8_lossy(&output.stderr);
        let is_warned = WARNED.iter().any(|name| yaml.starts_with(&format!("# {name}\n")));
        assert!(output.status.success() && (told.is_empty() || is_warned), "{}: {yaml}\n{told}", page.display());
    }
}

#[test]
fn check_prints_what_is_quoted() {
    let output = check(&the_yaml());
    assert!(output.status.success());
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(manual().contains(&format!("`check` prints `{}`", printed.trim_end())), "{printed}");
    assert!(output.stderr.is_empty(), "no warning: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_mistake_is_shown_as_quoted() {
    let output = check(&the_yaml().replacen("pool: postgres", "pol: postgres", 1));
    assert_eq!(output.status.code(), Some(2));
    let printed = String::from_utf8_lossy(&output.stderr);
    assert_eq!(printed, quote("error: unknown key"));
}

/// The example runs with db-2 down and three connections open.
#[test]
fn top_and_explain_print_what_is_quoted() {
    let (one, two) = (Backend::named_and_open("1"), Dead::start());
    let (example, _) =
        the_yaml().split_once("log:\n").map(|(a, b)| (a.to_owned(), b.to_owned())).expect("a log section");
    let example = example
        .replace("127.0.0.1:6432", "127.0.0.1:0")
        .replace("127.0.0.1:5432", &one.address().to_string())
        .replace("127.0.0.1:5433", &two.address().to_string());
    let admin = "admin: { bind: 127.0.0.1:9900 }";
    assert!(manual().contains(&format!("With `{admin}` in its configuration")));
    let tidegate = Tidegate::start(&format!("{}\n{example}", admin.replace("9900", "0")));
    tidegate.wait_for_down("db-2");
    let mut open: Vec<_> = (0..3).map(|_| connect(&tidegate.at("postgres"))).collect();
    open.iter_mut().for_each(|stream| expect(stream, b"1"));
    let run = |command: &str| {
        let stats = tidegate.stats_port().to_string();
        let output = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args(command.split(' ').skip(1))
            .args(["--stats", &stats])
            .output()
            .expect(command);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    };

    let table = "tidegate top --once";
    assert!(manual().contains(&format!("`{table}`")));
    // Letters stand where they are quoted, numbers do not matter.
    let shape = |text: &str| -> Vec<Vec<String>> {
        let is_name = |word: &&str| word.starts_with(|letter: char| letter.is_alphabetic());
        text.lines().map(|line| line.split_whitespace().filter(is_name).map(str::to_owned).collect()).collect()
    };
    let without_numbers = |text: &str| shape(&text.replace("2h 14m", "0s"));
    assert_eq!(without_numbers(&run(table)), without_numbers(&quote("BACKEND")));

    let question = "tidegate explain --client 10.0.0.7";
    assert!(manual().contains(&format!("`{question}`")));
    let said = run(question)
        .replace(&tidegate.at("postgres").to_string(), "127.0.0.1:6432")
        .replace(&one.address().to_string(), "127.0.0.1:5432")
        .replace(&two.address().to_string(), "127.0.0.1:5433");
    let (before, since) = said.rsplit_once("down since ").expect("db-2 is down");
    let (quoted_before, quoted_since) = {
        let quoted = quote("because");
        quoted.rsplit_once("down since ").map(|(a, b)| (a.to_owned(), b.to_owned())).expect("db-2 is down")
    };
    assert_eq!(before, quoted_before);
    let no_digits = |text: &str| text.replace(|letter: char| letter.is_ascii_digit(), "0");
    assert_eq!(no_digits(since), no_digits(&quoted_since));
}

#[test]
fn the_example_of_tls_answers_curl() {
    require("curl", "curl");
    let [shop, admin] = ["shop", "admin"].map(Backend::web);
    let example = yaml("tls.yaml")
        .replace("127.0.0.1:8443", "127.0.0.1:0")
        .replace("127.0.0.1:3001", &shop.address().to_string())
        .replace("127.0.0.1:3002", &admin.address().to_string())
        .replace(" certs/", &format!(" {}/certs/", root().display()));
    let tidegate = Tidegate::start(&example);
    let port = tidegate.at("web").tcp().port().to_string();
    let quoted = command("curl --cacert").replace("8443", &port);
    for (command, answer) in [(quoted.clone(), "admin"), (quoted.replace("admin.", ""), "shop")] {
        let mut shell = Command::new("sh");
        let output =
            shell.args(["-c", &format!("{command} -sS --max-time 30")]).current_dir(root()).output().expect("sh");
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(String::from_utf8_lossy(&output.stdout), answer, "{command}: {told}");
    }
}

#[test]
fn table_of_termination_reasons_is_complete() {
    let text = manual();
    let (_, section) = text.split_once("\n# Termination reasons\n").expect("the section");
    let (section, _) = section.split_once("\n# ").expect("the next page");
    let rows = section.lines().filter(|line| line.starts_with("| `") && !line.starts_with("| `reason`"));
    let words = |cell: &str| cell.split(',').map(|word| word.trim().trim_matches('`').to_owned()).collect::<Vec<_>>();
    let listed: BTreeSet<(String, String)> = rows
        .flat_map(|row| {
            let cells: Vec<&str> = row.split('|').collect();
            let (ends, codes) = (words(cells[1]), words(cells[2]));
            // One code for all, or one for each.
            ends.into_iter().zip(codes.into_iter().cycle()).collect::<Vec<_>>()
        })
        .collect();
    let all = Termination::ALL.iter().map(|ending| (ending.to_string(), ending.code().to_owned()));
    assert_eq!(listed, all.collect());
}

#[test]
fn every_algorithm_of_the_table_can_be_configured() {
    let text = manual();
    let (_, section) = text.split_once("| `balance` | chooses |\n|---|---|\n").expect("the table");
    let names: Vec<&str> = section.lines().map_while(|row| row.strip_prefix("| `")?.split('`').next()).collect();
    assert_eq!(names.len(), 6, "{names:?}");
    for name in names {
        let output = check(&the_yaml().replace("least_connections", name));
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn the_two_commands_are_those_of_the_project() {
    let commands = &blocks("sh")[0];
    assert!(commands.contains("cargo run --release -- demo") && commands.contains("make test"), "{commands}");
    // The demo itself is run in demo.rs; `make test` is what runs this.
    let makefile = fs::read_to_string(root().join("Makefile")).expect("the Makefile");
    for target in ["test:", "quick:", "lint:"] {
        assert!(makefile.lines().any(|line| line.starts_with(target)), "no target {target}");
    }
}
