//! Every command of the manual is run, or of a program whose reason is named here.
//!
//! Commands of tidegate and curl run against an instance whose names are those of the manual; each ends with 0.

use std::fs;
use std::process::Command;

use crate::support::backend::Backend;
use crate::support::docs::{Block, blocks, blocks_of, pages, root};
use crate::support::process::require;
use crate::support::tidegate::Tidegate;

/// Programs that are not run here, and why that is no loss.
const NOT_RUN: [(&str, &str); 8] = [
    ("apt install ./target/debian", "dpkg installs it in tests/peers/debian_package.rs"),
    ("editor ", "a person's"),
    ("systemctl ", "tests/peers/debian_package.rs"),
    ("podman build", "no container engine is asked for; tests/peers/container.rs makes the image's root file system"),
    ("cargo run --release -- demo", "the demo is run in demo.rs; a release build takes minutes"),
    ("cargo install --path .", "builds for minutes; the package's manifest is what every test is built by"),
    ("make ", "its target is looked up in the Makefile; `make test` runs this test"),
    ("psql ", "run in tests/peers/docs.rs in front of a real server"),
];

/// Commands of tidegate that only run elsewhere.
const ELSEWHERE: [(&str, &str); 1] = [("tidegate upgrade", "tests/it/upgrade.rs")];

/// Lines without comments.
fn lines(text: &str) -> Vec<String> {
    let uncommented =
        text.lines().map(|line| line.split(" # ").next().unwrap_or_default().split("  #").next().unwrap_or_default());
    uncommented.map(|line| line.trim().to_owned()).filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

/// Those of `sh` blocks, and those in the EXAMPLES of tidegate(1).
fn commands() -> Vec<(String, String)> {
    let of_pages = blocks_of("sh");
    let page = Command::new(env!("CARGO_BIN_EXE_tidegate")).arg("man").output().unwrap();
    let page = String::from_utf8(page.stdout).unwrap().replace("\\-", "-");
    let (_, examples) = page.split_once(".SH EXAMPLES\n").unwrap();
    let of_man: String = examples.split(".nf\n").skip(1).filter_map(|part| part.split(".fi").next()).collect();
    let of_man = Block { page: "tidegate(1)".into(), language: "sh".into(), text: of_man };
    let all = of_pages.into_iter().chain([of_man]);
    all.flat_map(|block| lines(&block.text).into_iter().map(move |line| (block.page.display().to_string(), line)))
        .collect()
}

/// An instance with the names that the manual uses, with a token by which changes are allowed.
fn instance(folder: &tempfile::TempDir) -> (Tidegate, Vec<Backend>, String) {
    let backends: Vec<Backend> = (0..3).map(|_| Backend::named_and_open("x")).collect();
    let socket = folder.path().join("admin.sock");
    let yaml = format!(
        "admin: {{ bind: \"unix:{}\" }}\n\
         listeners:\n\
         \x20 - {{ name: postgres, bind: \"127.0.0.1:0\", pool: db }}\n\
         \x20 - {{ name: web, bind: \"127.0.0.1:0\", pool: shop }}\n\
         pools:\n\
         \x20 - {{ name: db, backends: [{{ name: db-1, address: \"{}\" }}, {{ name: db-2, address: \"{}\" }}] }}\n\
         \x20 - {{ name: shop, backends: [{{ name: shop-1, address: \"{}\" }}] }}\n",
        socket.display(),
        backends[0].place(),
        backends[1].place(),
        backends[2].place()
    );
    (Tidegate::start(&yaml), backends, socket.display().to_string())
}

#[test]
fn every_command_runs() {
    require("curl", "curl");
    let folder = tempfile::tempdir().unwrap();
    for block in blocks("yaml") {
        if let Some(name) =
            block.lines().next().and_then(|line| line.strip_prefix("# ")).filter(|name| name.ends_with(".yaml"))
        {
            fs::write(folder.path().join(name), &block).unwrap();
        }
    }
    let (mut count, mut failed) = (0, Vec::new());
    for (page, command) in commands() {
        if NOT_RUN.iter().chain(&ELSEWHERE).any(|(beginning, _)| command.starts_with(beginning)) {
            continue;
        }
        // `curl --cacert` is run in docs_examples.rs against the example that it belongs to.
        if command.starts_with("curl --cacert") {
            continue;
        }
        count += 1;
        // An instance each: one command's change is not the other's.
        let (_tidegate, _backends, socket) = instance(&folder);
        let words: Vec<&str> = command.split_whitespace().collect();
        let program = env!("CARGO_BIN_EXE_tidegate");
        let line = match words[..] {
            // Listens on the addresses of the example, which may be in use: checked instead.
            ["tidegate", "run", ..] => command.replacen("tidegate run", &format!("{program} check"), 1),
            ["tidegate", "check" | "man" | "schema" | "completions" | "init", ..] => {
                command.replacen("tidegate", program, 1)
            }
            ["tidegate", "convert", ..] => {
                fs::copy(root().join("tests/convert/redis_sentinel.cfg"), folder.path().join("haproxy.cfg")).unwrap();
                let nginx = "stream {\n    server {\n        listen 127.0.0.1:6432;\n        proxy_pass 127.0.0.1:5432;\n    }\n}\n";
                fs::write(folder.path().join("nginx.conf"), nginx).unwrap();
                command.replacen("tidegate", program, 1)
            }
            ["tidegate", "kill", id] if id.len() == 16 => {
                // No connection has this id: only the form counts.
                format!("{program} kill --admin unix:{socket} --client 192.0.2.1")
            }
            // They show what a state of their own comes to.
            ["tidegate", "top", ..] => {
                format!("{} --once --admin unix:{socket}", command.replacen("tidegate", program, 1))
            }
            ["tidegate", ..] => format!("{} --admin unix:{socket}", command.replacen("tidegate", program, 1)),
            ["curl", ..] => command
                .replace("/run/tidegate/admin.sock", &socket)
                .replace("'http://127.0.0.1:9900", &format!("--unix-socket {socket} 'http://localhost"))
                .replacen("curl", "curl -sS --fail --max-time 30", 1),
            _ => panic!("{page}: `{command}` is of no known kind"),
        };
        let line = line.replace("/usr/local/share/man/man1/", "./").replace("/usr/local/share/man/man5/", "./");
        // In this directory, `check` without a name finds the README's example.
        let output = Command::new("sh").args(["-c", &line]).current_dir(folder.path()).output().unwrap();
        if !output.status.success() {
            failed.push(format!("{page}: {command}\n{}", String::from_utf8_lossy(&output.stderr)));
        }
        let _ = fs::remove_file(&socket);
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert!(count > 25, "{count}");
}

/// Commands in the text are parsed: `tidegate drain db/db-2` in backquotes has arguments that exist.
#[test]
fn commands_in_the_text_exist() {
    let help = Command::new(env!("CARGO_BIN_EXE_tidegate")).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    for page in pages() {
        for span in page.prose().split('`').skip(1).step_by(2).filter(|span| span.starts_with("tidegate ")) {
            let name = span.split_whitespace().nth(1).unwrap();
            let is_word = name.chars().all(|letter| letter.is_ascii_lowercase());
            assert!(!is_word || help.contains(&format!("\n  {name} ")), "{}: {span}", page.path.display());
        }
    }
}

#[test]
fn make_targets_exist() {
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    for (page, command) in commands() {
        let Some(target) = command.strip_prefix("make ").and_then(|rest| rest.split_whitespace().next()) else {
            continue;
        };
        let exists = makefile.lines().any(|line| line.starts_with(&format!("{target}:")));
        assert!(exists, "{page}: {command}");
    }
}
