//! `tidegate convert`: files in the shape that people run, each with its result and its report beside it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tidegate::config::{files::Unread, parse};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/convert")
}

fn convert(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.arg("convert").args(arguments).current_dir(folder()).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// With `TIDEGATE_BLESS=1` the results are written instead; read what changed before you commit it.
#[test]
fn every_file_becomes_what_is_beside_it() {
    let entries = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|kind| kind == "cfg" || kind == "conf")).collect();
    files.sort();
    assert!(files.len() >= 25, "{files:?}");
    let mut wrong = Vec::new();
    for path in files {
        let name = path.file_name().unwrap().to_str().unwrap();
        let output = convert(&[name]);
        let (yaml, report) = (text(&output.stdout), text(&output.stderr));
        // The files that it names are of another host.
        let checked = parse(name, yaml, &Unread);
        assert!(checked.is_ok(), "{name}:\n{}\n{yaml}", checked.unwrap_err());
        assert_eq!(output.status.code(), Some(i32::from(!report.is_empty())), "{name}: {report}");
        // What lets clients in, or sends them elsewhere, is read first in the result, and stays on the screen.
        let is_warning = |line: &&str| line.contains(": WARNING, not translated: ");
        assert!(report.lines().skip_while(|line| !is_warning(line)).all(|line| is_warning(&line)), "{report}");
        let heading = yaml.lines().nth(2).unwrap_or_default();
        assert_eq!(heading.starts_with("# WARNING: "), report.lines().any(|line| is_warning(&line)), "{yaml}");
        for line in report.lines() {
            // It may be of a file that this one includes.
            let (file, rest) = line.split_once(':').unwrap();
            let lines = fs::read_to_string(folder().join(file)).unwrap_or_else(|_| panic!("{line}")).lines().count();
            let number =
                rest.split(':').next().and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{line}"));
            assert!((1..=lines).contains(&number), "{line}");
        }
        for (found, kind) in [(yaml, "yaml"), (report, "report")] {
            let beside = path.with_extension(kind);
            if std::env::var_os("TIDEGATE_BLESS").is_some() {
                fs::write(&beside, found).unwrap();
            }
            if fs::read_to_string(&beside).unwrap_or_default() != found {
                wrong.push(format!("{}:\n{found}", beside.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn stdin_and_output_are_the_same_as_file_and_stdout() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.yaml");
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    let input = fs::File::open(folder().join("redis_sentinel.cfg")).unwrap();
    let output = command.args(["convert", "-", "--output"]).arg(&path).stdin(Stdio::from(input)).output().unwrap();
    assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
    let (_, written) =
        fs::read_to_string(&path).unwrap().split_once('\n').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    assert!(text(&convert(&["redis_sentinel.cfg"]).stdout).ends_with(&written));
}

#[test]
fn what_cannot_be_read_exits_with_2() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.cfg");
    for (content, why) in [(&b"listeners: []\n"[..], "no frontend or listen"), (b"\xff", "not UTF-8")] {
        fs::write(&path, content).unwrap();
        let output = convert(&[path.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(output.stdout.is_empty() && text(&output.stderr).contains(why), "{output:?}");
    }
    assert_eq!(convert(&["none.cfg"]).status.code(), Some(2));
}

#[test]
fn from_wins_over_the_content() {
    let fragment = folder().join("postgres_stream.conf");
    let fragment = fragment.to_str().unwrap();
    let found = convert(&[fragment]).stdout;
    assert!(!found.is_empty());
    assert_eq!(text(&convert(&[fragment, "--from", "nginx"]).stdout), text(&found));
    for (file, from, why) in [
        (fragment, "haproxy", "is it a configuration file of HAProxy?"),
        ("redis_sentinel.cfg", "nginx", "no server of stream or http"),
    ] {
        let output = convert(&[file, "--from", from]);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(text(&output.stderr).contains(why), "{output:?}");
    }
}
