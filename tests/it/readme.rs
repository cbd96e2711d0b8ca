//! What the README says is so.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use tidegate::stats::ending::Ending;

use crate::support::free_port;
use crate::support::postgres::Postgres;
use crate::support::tidegate::Tidegate;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn readme() -> String {
    fs::read_to_string(root().join("README.md")).expect("the README")
}

/// The code blocks of a language, in order.
fn blocks(language: &str) -> Vec<String> {
    let text = readme();
    let mut blocks = Vec::new();
    let mut rest = text.as_str();
    while let Some((_, after)) = rest.split_once(&format!("\n```{language}\n")) {
        let (block, after) = after.split_once("\n```").expect("an end of the block");
        blocks.push(format!("{block}\n"));
        rest = after;
    }
    blocks
}

fn the_yaml() -> String {
    let [yaml] = &blocks("yaml")[..] else { panic!("one YAML block is expected") };
    yaml.clone()
}

/// `tidegate check` of this text under the README's name.
fn check(yaml: &str) -> Output {
    let folder = tempfile::tempdir().expect("a temporary directory");
    fs::write(folder.path().join("postgres.yaml"), yaml).expect("write the configuration");
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(["check", "--config", "postgres.yaml"]).current_dir(folder.path()).output().expect("tidegate check")
}

#[test]
fn check_prints_what_is_quoted() {
    let output = check(&the_yaml());
    assert!(output.status.success());
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(readme().contains(&format!("`check` prints `{}`", printed.trim_end())), "{printed}");
    assert!(output.stderr.is_empty(), "no warning: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_mistake_is_shown_as_quoted() {
    let output = check(&the_yaml().replacen("pool: postgres", "pol: postgres", 1));
    assert_eq!(output.status.code(), Some(2));
    let printed = String::from_utf8_lossy(&output.stderr);
    let quoted = blocks("text").into_iter().find(|block| block.starts_with("error:")).expect("the error's block");
    assert_eq!(printed, quoted);
}

#[test]
fn the_example_runs_in_front_of_postgres() {
    let postgres = Postgres::start();
    let (example, log) =
        the_yaml().split_once("log:\n").map(|(a, b)| (a.to_owned(), b.to_owned())).expect("a log section");
    let example = example
        .replace("127.0.0.1:6432", "127.0.0.1:0")
        .replace("127.0.0.1:5432", &format!("127.0.0.1:{}", postgres.port()))
        .replace("127.0.0.1:5433", &format!("127.0.0.1:{}", free_port()));
    let log = log.trim().replace('\n', ", ");
    let tidegate = Tidegate::with(&example).log(&format!("{{ {log} }}")).start();
    let up = |line: &crate::support::tidegate::Line| line.text.contains("backend up") && line.text.contains("db-1");
    tidegate.wait_for_log("db-1 is up", up);

    let sh = blocks("sh").into_iter().find(|block| block.starts_with("psql")).expect("the psql command");
    let port = tidegate.at_text("postgres").port();
    let command = sh.trim().replace("6432", &port.to_string());
    let mut shell = Command::new("sh");
    shell.args(["-c", &command]).env("PGUSER", "postgres").env("PGCONNECT_TIMEOUT", "30");
    let output = shell.output().expect("sh");
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("(1 row)"));

    let quoted = blocks("text").into_iter().find(|block| block.contains("end=")).expect("the access line's block");
    let line = tidegate.wait_for_log("the access line", |line| line.text.contains("end=\"client closed\""));
    let keys = |line: &str| line.split(' ').map(|pair| pair.split('=').next().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(keys(&line.text)[1..], keys(quoted.trim_end())[1..], "the same fields in the same order");
    assert!(line.text.contains("listener=postgres") && line.text.contains("backend=db-1"), "{}", line.text);
}

#[test]
fn every_ending_is_in_the_table_and_none_else() {
    let text = readme();
    let (_, section) = text.split_once("## What a connection's end is called").expect("the section");
    let (section, _) = section.split_once("\n## ").expect("the next section");
    let rows = section.lines().filter(|line| line.starts_with("| `") && !line.starts_with("| `end`"));
    let listed: BTreeSet<String> = rows
        .flat_map(|row| row.split('|').nth(1).unwrap().split(',').map(|cell| cell.trim().trim_matches('`').to_owned()))
        .collect();
    assert_eq!(listed, Ending::ALL.iter().map(ToString::to_string).collect());
}

#[test]
fn every_algorithm_of_the_table_can_be_configured() {
    let text = readme();
    let (_, section) = text.split_once("| `balance` | chooses |\n|---|---|\n").expect("the table");
    let names: Vec<&str> = section.lines().map_while(|row| row.strip_prefix("| `")?.split('`').next()).collect();
    assert_eq!(names.len(), 6, "{names:?}");
    for name in names {
        let output = check(&the_yaml().replace("least_connections", name));
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn what_is_linked_exists() {
    let text = readme();
    let links: Vec<&str> = text.split("](").skip(1).filter_map(|rest| rest.split(')').next()).collect();
    assert!(links.len() > 5, "{links:?}");
    for link in links.into_iter().filter(|link| !link.starts_with('#')) {
        assert!(root().join(link).exists(), "{link}");
    }
}

#[test]
fn the_two_commands_are_those_of_the_project() {
    let commands = &blocks("sh")[0];
    assert!(commands.contains("cargo run --release -- demo") && commands.contains("make test"), "{commands}");
    // The demo itself is run in demo.rs; `make test` is what runs this.
    let makefile = fs::read_to_string(root().join("Makefile")).expect("the Makefile");
    for target in ["test:", "lint:"] {
        assert!(makefile.lines().any(|line| line.starts_with(target)), "no target {target}");
    }
}
