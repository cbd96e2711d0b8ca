//! Configuration files and the subcommands that do not run anything, as a user meets them.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::support::tidegate::Tidegate;

const WARNS: &str = "listeners: [{ name: web, bind: 127.0.0.1:0, pool: web }]
pools:
  - { name: web, backends: [{ address: 127.0.0.1:3001, weight: 0 }] }
  - { name: api, backends: [{ address: 127.0.0.1:3001 }, { address: 127.0.0.1:3002 }] }
";

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn tidegate(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidegate")).args(arguments).current_dir(directory).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// What `check` says of a file with this content.
fn check(content: impl AsRef<[u8]>) -> Output {
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join("x.yaml"), content).unwrap();
    tidegate(directory.path(), &["check", "--config", "x.yaml"])
}

fn refused(output: &Output, message: &str) {
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert_eq!(stdout(output), "");
    assert!(stderr(output).contains(message), "{}", stderr(output));
}

/// Git keeps no modes, and a key that everybody may read is warned of.
fn close_the_key() {
    fs::set_permissions(repository("certs/dev.key"), fs::Permissions::from_mode(0o600)).unwrap();
}

/// The files of a folder with this ending, in order.
fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(repository(folder)).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == ending));
    files.sort();
    files
}

/// Each `tests/broken/*.yaml` is refused with exactly the text beside it. With `TIDEGATE_BLESS=1` the
/// texts are written instead; read what changed before you commit it.
#[test]
fn every_broken_file_is_rejected_with_its_message() {
    close_the_key();
    let broken = files("tests/broken", "yaml");
    assert!(broken.len() >= 70, "only {} files", broken.len());
    let mut wrong = Vec::new();
    for path in &broken {
        let name = path.file_name().unwrap().to_str().unwrap();
        let output = tidegate(&repository("tests/broken"), &["check", "--config", name]);
        assert_eq!(output.status.code(), Some(2), "{name}: {output:?}");
        assert_eq!(stdout(&output), "", "{name}");
        // Whatever the text beside it says: each paragraph names its place and marks it.
        for paragraph in stderr(&output).split("\n\n") {
            let ok = (paragraph.starts_with("error: ") || paragraph.starts_with("warning: "))
                && paragraph.contains(&format!("--> {name}:"))
                && paragraph.contains('^');
            assert!(ok, "{name}:\n{paragraph}");
        }
        let text = path.with_extension("txt");
        if std::env::var_os("TIDEGATE_BLESS").is_some() {
            fs::write(&text, &output.stderr).unwrap();
        }
        let expected = fs::read_to_string(&text).unwrap_or_default();
        if stderr(&output) != expected {
            wrong.push(format!("{name} says:\n{}\nexpected:\n{expected}", stderr(&output)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let texts = files("tests/broken", "txt");
    assert_eq!(texts.len(), broken.len(), "a text without its file");
}

#[test]
fn every_example_is_valid() {
    close_the_key();
    let mut examples = files("config", "yaml");
    // Of Prometheus: see monitoring.rs.
    examples.retain(|path| !path.ends_with("alerts.yaml"));
    let names: Vec<&str> = examples.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    for name in [
        "full.yaml",
        "game.yaml",
        "http.yaml",
        "mysql.yaml",
        "passthrough.yaml",
        "postgres.yaml",
        "redis.yaml",
        "tls.yaml",
        "web.yaml",
    ] {
        assert!(names.contains(&name), "{name} is missing from {names:?}");
    }
    for path in examples {
        let path = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().to_str().unwrap();
        let output = tidegate(&repository("."), &["check", "--config", path]);
        assert_eq!(output.status.code(), Some(0), "{path}: {}", stderr(&output));
        assert!(stdout(&output).starts_with(&format!("{path}: ok (")), "{}", stdout(&output));
        assert_eq!(stderr(&output), "", "{path}");
        let text = fs::read_to_string(repository(path)).unwrap();
        let editors = "# yaml-language-server: $schema=tidegate.schema.json\n";
        assert!(text.starts_with(&format!("{editors}# ")), "{path}: editors look for {editors} then comes what it is");
        let command = format!("tidegate run --config {path}");
        assert!(text.contains(&command), "{path} does not say how to run it");
    }
}

#[test]
fn valid_file_with_warnings_is_counted_and_passes() {
    let output = check(WARNS);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(stdout(&output), "x.yaml: ok (1 listener, 2 pools, 3 backends)\n");
    let warnings = stderr(&output);
    assert_eq!(warnings.matches("warning: ").count(), 2, "{warnings}");
    assert!(warnings.contains("x.yaml:4:13"), "{warnings}");
}

#[test]
fn unreadable_file_is_named_with_the_reason() {
    let directory = TempDir::new().unwrap();
    let at = |arguments: &[&str]| tidegate(directory.path(), arguments);
    let missing = at(&["check", "--config", "none.yaml"]);
    refused(&missing, "error: cannot read none.yaml: No such file or directory");
    refused(&at(&["check", "--config", "."]), "error: cannot read .: Is a directory");
    refused(&at(&["run", "--config", "none.yaml"]), "error: cannot read none.yaml");
    refused(&check(b"workers: 2\nlog: \xff\n"), "error: x.yaml:2: not UTF-8 text");
    let large = "# a comment\n".repeat((16 << 20) / 12 + 1);
    refused(&check(large), "error: x.yaml is larger than 16 MiB");
}

#[test]
fn file_argument_with_or_without_the_option_is_accepted() {
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join("x.yaml"), WARNS).unwrap();
    let at = |arguments: &[&str]| tidegate(directory.path(), arguments);
    for arguments in [&["check", "x.yaml"][..], &["check", "--config", "x.yaml"], &["check", "-c", "x.yaml"]] {
        let output = at(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {output:?}");
        assert!(stdout(&output).starts_with("x.yaml: ok ("), "{output:?}");
    }
    refused(&at(&["run", "none.yaml"]), "error: cannot read none.yaml");
    refused(&at(&["check", "x.yaml", "--config", "x.yaml"]), "cannot be used with");
}

/// What `check` lets overlap, the kernel lets listen.
#[test]
fn permitted_overlapping_binds_can_listen() {
    let port = || TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port();
    for (first, second, reuse_port) in [("0.0.0.0", "[::]", "auto"), ("127.0.0.1", "0.0.0.0", "true")] {
        let port = port();
        let yaml = format!(
            "listeners:
  - {{ name: one, bind: \"{first}:{port}\", pool: p }}
  - {{ name: two, bind: \"{second}:{port}\", pool: p, socket: {{ reuse_port: {reuse_port} }} }}
pools: [{{ name: p, backends: [{{ address: 127.0.0.1:1 }}] }}]
"
        );
        let tidegate = Tidegate::start(&yaml);
        assert_eq!(tidegate.at("one").tcp().port(), port);
        assert_eq!(tidegate.at("two").tcp().port(), port);
    }
}

/// A socket in a folder that is not there, or under the name of another file, is refused by `run` as by `check`.
#[test]
fn run_rejects_what_check_rejects() {
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join("file"), "").unwrap();
    let at = directory.path().display();
    for (bind, expected) in [
        (format!("unix:{at}/none/a.sock"), "there is no directory "),
        (format!("unix:{at}/file"), "exists and is not a socket"),
        ("[0.0.0.0:1, 127.0.0.1:1]".to_owned(), "overlaps `0.0.0.0:1`"),
    ] {
        let yaml = format!(
            "listeners: [{{ name: l, bind: {bind}, pool: p }}]
pools: [{{ name: p, backends: [{{ address: 127.0.0.1:2 }}] }}]
"
        );
        fs::write(directory.path().join("x.yaml"), yaml).unwrap();
        for command in ["check", "run"] {
            refused(&tidegate(directory.path(), &[command, "x.yaml"]), expected);
        }
    }
}

#[test]
fn without_a_file_argument_the_default_paths_are_tried() {
    let directory = TempDir::new().unwrap();
    for command in ["check", "run"] {
        let output = tidegate(directory.path(), &[command]);
        refused(&output, "neither ./tidegate.yaml nor /etc/tidegate/config.yaml exists");
    }
    fs::write(directory.path().join("tidegate.yaml"), WARNS).unwrap();
    let output = tidegate(directory.path(), &["check"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(stderr(&output).starts_with("tidegate: using ./tidegate.yaml\n"), "{output:?}");
    assert!(stdout(&output).starts_with("./tidegate.yaml: ok ("), "{output:?}");
}

#[test]
fn report_outside_a_terminal_has_no_colours() {
    let output = check("worker: 1\n");
    assert!(!output.stderr.contains(&0x1b), "{}", stderr(&output));
}

#[test]
fn escape_sequences_in_the_file_do_not_reach_the_terminal() {
    let output = check("\"\\e[31mred\": 1\nlog: { level: \"\\e]0;title\\a\" }\nx: \x1b[32m\n");
    refused(&output, "unknown key");
    assert!(!output.stderr.contains(&0x1b), "{}", stderr(&output));
}

#[test]
fn schema_is_json_and_describes_the_keys() {
    let output = tidegate(&repository("."), &["schema"]);
    assert_eq!(output.status.code(), Some(0));
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(schema["title"], "tidegate");
    assert_eq!(schema["properties"]["pools"]["items"]["required"], serde_json::json!(["name"]));
    assert!(schema["required"].is_null(), "a section may be in another file");
    let workers = &schema["properties"]["workers"];
    assert_eq!(workers["default"], "auto");
    assert!(workers["description"].is_string());
}

#[test]
fn completions_and_the_manual_page_name_the_subcommands() {
    for shell in ["bash", "zsh", "fish"] {
        let output = tidegate(&repository("."), &["completions", shell]);
        assert_eq!(output.status.code(), Some(0));
        assert!(stdout(&output).contains("COMPLETE="), "{shell}: it asks tidegate");
    }
    let candidates = |words: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .env("COMPLETE", "bash")
            .env("_CLAP_COMPLETE_INDEX", (words.len() - 1).to_string())
            .env("_CLAP_IFS", "\n")
            .arg("--")
            .args(words)
            .output()
            .unwrap();
        stdout(&output).lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(candidates(&["tidegate", "comp"]), ["completions"]);
    assert!(candidates(&["tidegate", "init", "--for", ""]).iter().any(|word| word == "postgres"));
    assert!(candidates(&["tidegate", "explain", "--"]).iter().any(|word| word == "--client"));
    let output = tidegate(&repository("."), &["completions", "cobol"]);
    assert_eq!(output.status.code(), Some(2));

    let output = tidegate(&repository("."), &["man"]);
    assert_eq!(output.status.code(), Some(0));
    let page = stdout(&output);
    assert!(page.starts_with('.'), "{page}");
    let files = page.split(".SH FILES\n").nth(1).expect("a section FILES");
    assert!(files.contains("/etc/tidegate/config.yaml") && files.contains("./tidegate.yaml"), "{files}");
    for word in [
        ".TH tidegate 1",
        "check",
        "seconds",
        "SHELL",
        ".SS top",
        ".SS explain",
        ".SS init",
        "postgres",
        "dry run",
        "shutdown.drain",
    ] {
        assert!(page.contains(word), "{word}: {page}");
    }
}

#[test]
fn version_names_the_commit_and_the_tls_provider() {
    let output = tidegate(&repository("."), &["--version"]);
    assert_eq!(output.status.code(), Some(0));
    let expected = format!(
        "tidegate {} (git {}, TLS provider: {})\n",
        env!("CARGO_PKG_VERSION"),
        env!("TIDEGATE_GIT_HASH"),
        env!("TIDEGATE_TLS")
    );
    assert_eq!(stdout(&output), expected);
}

#[test]
fn closed_stdout_is_no_failure() {
    for arguments in [&["schema"][..], &["man"], &["completions", "bash"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = Command::new(env!("CARGO_BIN_EXE_tidegate")).args(arguments).stdout(writer).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {output:?}");
        assert_eq!(stderr(&output), "", "{arguments:?}");
    }
}
