//! The manual is whole: links and anchors lead somewhere, terms are found, the reference is that of the schema.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use tidegate::config::reference::{KeyReference, reference};

use crate::support::docs::{Page, manual, pages, root};

/// What somebody looks for, in their words.
const TERMS: [&str; 62] = [
    "sticky",
    "mTLS",
    "failover",
    "rate limit",
    "token bucket",
    "graceful shutdown",
    "zero-copy",
    "splice",
    "SNI",
    "ALPN",
    "PROXY protocol",
    "half-close",
    "circuit breaker",
    "drain",
    "maintenance",
    "hot reload",
    "keepalive",
    "slow start",
    "consistent hashing",
    "session persistence",
    "health check",
    "round robin",
    "least connections",
    "weight",
    "backup",
    "TLS termination",
    "TLS passthrough",
    "STARTTLS",
    "certificate reload",
    "session resumption",
    "backlog",
    "idle timeout",
    "retry",
    "failback",
    "source address",
    "DNS",
    "unix socket",
    "systemd",
    "socket activation",
    "upgrade",
    "logrotate",
    "signals",
    "exit code",
    "Prometheus",
    "Grafana",
    "histogram",
    "percentile",
    "dashboard",
    "access log",
    "syslog",
    "journald",
    "termination reason",
    "Kubernetes",
    "readiness",
    "Patroni",
    "Galera",
    "Sentinel",
    "max_connect_errors",
    "outlier detection",
    "WebSocket",
    "capabilities",
    "UDP",
];

/// Targets of links outside code.
fn links(page: &Page) -> Vec<String> {
    let prose = page.prose();
    // Code spans hold brackets that are no links.
    let without_code: String = prose.split('`').step_by(2).collect::<Vec<_>>().join("code");
    without_code.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0.to_owned())).collect()
}

/// As code hosts make it of a heading.
fn anchor(heading: &str) -> String {
    let letters = heading.to_lowercase();
    let kept = letters.chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
    kept.map(|letter| if letter == ' ' { '-' } else { letter }).collect()
}

fn headings(page: &Page) -> Vec<String> {
    let prose = page.prose();
    let lines = prose.lines().filter(|line| line.starts_with('#'));
    lines.map(|line| line.trim_start_matches('#').trim().to_owned()).collect()
}

fn resolved(from: &Path, link: &str) -> PathBuf {
    let mut path = PathBuf::new();
    for part in from.parent().unwrap_or(Path::new("")).join(link).components() {
        match part {
            Component::ParentDir => assert!(path.pop(), "{}: {link} leaves the repository", from.display()),
            part => path.push(part),
        }
    }
    path
}

#[test]
fn links_and_anchors_resolve() {
    let pages = pages();
    let mut count = 0;
    for page in &pages {
        for link in links(page).iter().filter(|link| !link.contains("://")) {
            count += 1;
            let (file, fragment) = link.split_once('#').unwrap_or((link, ""));
            let path = if file.is_empty() { page.path.clone() } else { resolved(&page.path, file) };
            assert!(root().join(&path).exists(), "{}: {link}", page.path.display());
            if !fragment.is_empty() {
                let target = pages.iter().find(|page| page.path == path).expect("an anchor of a page");
                let has = headings(target).iter().any(|heading| anchor(heading) == fragment);
                assert!(has, "{}: {link}", page.path.display());
            }
        }
    }
    assert!(count > 150, "{count}");
}

#[test]
fn summary_lists_every_page_once() {
    let summary = pages().into_iter().find(|page| page.path == Path::new("docs/SUMMARY.md")).expect("the summary");
    let linked: Vec<PathBuf> = links(&summary).iter().map(|link| resolved(&summary.path, link)).collect();
    let listed: BTreeSet<PathBuf> = linked.iter().cloned().collect();
    assert_eq!(listed.len(), linked.len(), "{linked:?}");
    let written = pages().into_iter().map(|page| page.path);
    let outside = ["README.md", "docs/SUMMARY.md"];
    let expected: BTreeSet<PathBuf> =
        written.filter(|path| !outside.iter().any(|out| path == Path::new(out))).collect();
    assert_eq!(listed, expected);
}

#[test]
fn every_term_is_in_a_heading_or_the_index() {
    let pages = pages();
    let index = pages.iter().find(|page| page.path == Path::new("docs/glossary.md")).expect("the index");
    let rows = index.text.lines().filter(|line| line.starts_with("| ") && line.contains("]("));
    let entries = rows.filter_map(|row| row.split('|').nth(1)).map(str::to_lowercase);
    let places: Vec<String> =
        entries.chain(pages.iter().flat_map(headings).map(|heading| heading.to_lowercase())).collect();
    let lost: Vec<_> =
        TERMS.iter().filter(|term| !places.iter().any(|place| place.contains(&term.to_lowercase()))).collect();
    assert!(lost.is_empty(), "{lost:?}");
}

#[test]
fn readme_is_two_screens() {
    let lines = fs::read_to_string(root().join("README.md")).unwrap().lines().count();
    assert!(lines <= 120, "{lines}: what is more goes into docs/");
}

/// Sections of the configuration, and their pages.
const EXPLAINED: [(&str, &str); 17] = [
    ("admin", "[Admin access](operations.md#admin-access)"),
    ("listeners[].http", "[HTTP: each request is balanced by itself](http-requests.md)"),
    ("listeners[].limits", "[Limits on clients](limits-on-clients.md)"),
    ("listeners[].proxy_protocol", "[PROXY protocol](recipes/proxy-protocol.md)"),
    ("listeners[].routes", "[TLS](tls.md), [HTTP by request](http-requests.md), [HTTP, watched](http.md)"),
    ("listeners[].timeouts", "[Timeouts](concepts.md#timeouts)"),
    ("listeners[].tls", "[TLS termination](tls.md#tls-termination)"),
    ("listeners[].tls.client_auth", "[mTLS](recipes/mtls.md)"),
    ("log", "[Logging](logging.md)"),
    ("pools[].backends", "[Concepts](concepts.md)"),
    ("pools[].hash", "[Sticky sessions](concepts.md#sticky-sessions)"),
    ("pools[].health", "[Health checks](concepts.md#health-checks)"),
    ("pools[].http", "[HTTP: each request is balanced by itself](http-requests.md)"),
    ("pools[].persist", "[Availability](availability.md#session-persistence)"),
    ("pools[].tls", "[TLS to backends](tls.md#tls-to-backends)"),
    ("reload", "[Operations](operations.md#changing-it-while-it-runs)"),
    ("shutdown", "[Start and stop](operations.md#start-and-stop)"),
];

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn row(key: &KeyReference) -> String {
    let (_, name) = key.section_and_name();
    let default = match &key.default {
        Some(default) => format!("`{default}`"),
        None if key.required => "required".to_owned(),
        None => String::new(),
    };
    let mut text = key.description.replace('\n', " ");
    let word = |(word, meaning): &(String, String)| match meaning.trim_end_matches('.') {
        "" => format!("`{word}`"),
        meaning => format!("`{word}` ({meaning})"),
    };
    let examples: Vec<String> = key.examples.iter().map(|example| format!("`{example}`")).collect();
    if !key.values.is_empty() {
        _ = write!(text, " Values: {}.", key.values.iter().map(word).collect::<Vec<_>>().join(", "));
    } else if !examples.is_empty() {
        _ = write!(text, " For example {}.", examples.join(", "));
    }
    let kind = if key.values.is_empty() { key.kind.as_str() } else { "word" };
    format!("| `{name}` | {} | {} | {} |\n", cell(kind), cell(&default), cell(&text))
}

fn rendered() -> String {
    const HEAD: &str = "| key | type | default | |\n|---|---|---|---|\n";
    let mut page = "# Reference of keys\n\n\
        <!-- Made from the schema: TIDEGATE_BLESS=1 cargo nextest run --test it reference_is -->\n\n\
        Every key of the configuration. [config/full.yaml](../config/full.yaml) has them in one file, with their defaults; `tidegate man tidegate.yaml`\n\
        prints this page for man(1), and `tidegate schema` the JSON Schema for editors.\n\n\
        Durations have a unit: `250ms`, `2s`, `5m`, `1h`. Rates are `20/s`, `600/m`, `1000/h`. Addresses are `127.0.0.1:5432`, `\"[::1]:5432\"`,\n\
        `\"[fe80::1%eth0]:5432\"` or `unix:/run/app.sock`. Files are relative to the working directory, paths of sockets absolute. `false` is the same as `off`. Unknown keys, duplicate\n\
        names and dangling references are errors.\n\n## Top of the file\n\n"
        .to_owned();
    page += HEAD;
    for key in reference() {
        if !key.is_section {
            page += &row(&key);
            continue;
        }
        let of_list = if key.kind.starts_with("list") { "[]" } else { "" };
        let required = if key.required { " Required." } else { "" };
        _ = write!(page, "\n## {}{of_list}\n\n{}{required}", key.path, key.description);
        if let Some((_, see)) = EXPLAINED.iter().find(|(section, _)| *section == key.path) {
            _ = write!(page, " See {see}.");
        }
        page += "\n\n";
        let begin = format!("{}{of_list}.", key.path);
        if reference()
            .iter()
            .any(|other| !other.is_section && other.path.strip_prefix(&begin).is_some_and(|rest| !rest.contains('.')))
        {
            page += HEAD;
        }
    }
    page.replace("\n\n\n", "\n\n")
}

#[test]
fn reference_is_that_of_the_schema() {
    for (section, _) in EXPLAINED {
        assert!(reference().iter().any(|key| key.is_section && key.path == section), "{section}");
    }
    let (path, expected) = (root().join("docs/reference.md"), rendered());
    if std::env::var_os("TIDEGATE_BLESS").is_some() {
        fs::write(&path, &expected).unwrap();
    }
    let how = "write it again: TIDEGATE_BLESS=1 cargo nextest run --test it reference_is";
    assert!(fs::read_to_string(&path).unwrap_or_default() == expected, "docs/reference.md is old; {how}");
}

fn page_of(name: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_tidegate")).args(["man", name]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().replace("\\-", "-")
}

#[test]
fn manual_page_of_the_configuration_has_every_key() {
    let page = page_of("tidegate.yaml");
    assert!(page.starts_with(".TH tidegate.yaml 5"), "{page}");
    let mut section = "Top of the file".to_owned();
    let mut found = BTreeSet::new();
    for line in page.lines() {
        if let Some(name) = line.strip_prefix(".SS ") {
            section = name.to_owned();
            found.insert(section.trim_end_matches("[]").to_owned());
        } else if let Some(name) = line.strip_prefix("\\fB").and_then(|rest| rest.strip_suffix("\\fR")) {
            found.insert(if section == "Top of the file" { name.to_owned() } else { format!("{section}.{name}") });
        }
    }
    let missing: Vec<String> = reference()
        .into_iter()
        .filter(|key| {
            let (of, name) = key.section_and_name();
            let in_list = format!("{}[].{name}", of.trim_end_matches("[]"));
            !found.contains(&key.path)
                && !found.contains(&in_list)
                && !found.contains(&format!("{}.{name}", of.trim_end_matches("[]")))
        })
        .map(|key| key.path)
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// The environment variables that the sources name where they read them.
fn variables(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        // Unit tests are not the program.
        if path.file_stem().is_some_and(|stem| stem == "tests") {
            continue;
        }
        if path.is_dir() {
            found.extend(variables(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            for call in ["env::var(\"", "env::var_os(\""] {
                found.extend(text.split(call).skip(1).filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
            }
        }
    }
    found
}

/// The sections that are asked for; every command with its help; signals as in the operations page; each variable that the sources read.
#[test]
fn manual_page_of_the_program_is_whole() {
    let page = page_of("tidegate");
    for section in ["COMMANDS", "EXIT STATUS", "SIGNALS", "ENVIRONMENT", "FILES", "EXAMPLES"] {
        assert!(
            page.contains(&format!("\n.SH {section}\n")) || page.contains(&format!("\n.SH \"{section}\"\n")),
            "{section}"
        );
    }
    let help = Command::new(env!("CARGO_BIN_EXE_tidegate")).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let (_, commands) = help.split_once("Commands:\n").unwrap();
    let names = commands
        .lines()
        .map_while(|line| line.strip_prefix("  "))
        // Descriptions go on in further lines.
        .filter(|line| !line.starts_with(' '))
        .filter_map(|line| line.split_whitespace().next());
    let names: Vec<&str> = names.filter(|name| *name != "help").collect();
    assert!(names.len() > 20, "{names:?}");
    for name in names {
        assert!(page.contains(&format!("\n.SS {name}\n")), "{name}");
    }

    let (_, signals) = page.split_once(".SH SIGNALS\n").unwrap();
    let (signals, _) = signals.split_once(".SH ").unwrap();
    let named = |text: &str| -> BTreeSet<String> {
        let text = text.replace("\\fB", " ");
        let words = text.split(|letter: char| !letter.is_ascii_alphanumeric());
        words.filter(|word| word.starts_with("SIG") && word.len() > 3).map(str::to_owned).collect()
    };
    let operations = fs::read_to_string(root().join("docs/operations.md")).unwrap();
    let (_, table) = operations.split_once("| signal | effect |").unwrap();
    let (table, _) = table.split_once("\n\n").unwrap();
    assert_eq!(named(signals), named(table));

    let (_, environment) = page.split_once(".SH ENVIRONMENT\n").unwrap();
    let (environment, _) = environment.split_once(".SH ").unwrap();
    let read = variables(&root().join("src"));
    assert!(read.len() >= 3, "{read:?}");
    // What libraries read.
    for name in read.iter().map(String::as_str).chain(["LISTEN_FDS", "WATCHDOG_USEC", "SSL_CERT_FILE", "COMPLETE"]) {
        assert!(environment.contains(name), "{name}");
    }
}

/// `troff` names each request that it does not know, and each escape.
#[test]
fn manual_pages_have_no_unknown_requests() {
    for name in ["tidegate", "tidegate.yaml"] {
        for line in page_of(name).lines().filter(|line| line.starts_with(['.', '\''])) {
            let request = line[1..].split_whitespace().next().unwrap_or_default();
            let known = ["TH", "SH", "SS", "PP", "TP", "IP", "RS", "RE", "nf", "fi", "ie", "el", "br"];
            assert!(known.contains(&request), "{name}: {line}");
        }
    }
}

#[test]
fn manual_has_no_text_of_mdbook_alone() {
    let text = manual();
    assert!(!text.contains("{{#"), "a directive that a code host shows as it is");
}
