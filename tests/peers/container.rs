//! The container image's root file system, and the files for container engines.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use saphyr_parser::{Event, Parser};

use crate::support::backend::Backend;
use crate::support::client::{Place, talking, try_connect};
use crate::support::process::{Process, bound, require};
use crate::support::{DEADLINE, eventually, free_port};

fn file(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// Scalars of a YAML file, in their order.
fn scalars(text: &str) -> Vec<String> {
    let events = Parser::new_from_str(text).map(|event| event.expect("valid YAML").0);
    events
        .filter_map(|event| if let Event::Scalar(text, ..) = event { Some(text.into_owned()) } else { None })
        .collect()
}

/// The image without an engine: its files, its user, and nothing else.
#[test]
fn image_serves_as_its_user() {
    require("unshare", "util-linux");
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("image");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/container-root.sh");
    let made = Command::new(script).arg(env!("CARGO_BIN_EXE_tidegate")).arg(&root).output().unwrap();
    assert!(made.status.success(), "as root: {}", String::from_utf8_lossy(&made.stderr));
    assert_eq!(fs::metadata(root.join("run/tidegate")).unwrap().uid(), 65532);

    let (backend, port) = (Backend::echo(), free_port());
    let yaml = format!(
        "admin: {{ bind: \"unix:/run/tidegate/admin.sock\" }}\n\
         listeners: [{{ name: in, bind: \"127.0.0.1:{port}\", pool: p }}]\n\
         pools: [{{ name: p, backends: [{{ name: b, address: \"{}\" }}] }}]\n",
        backend.place()
    );
    fs::write(root.join("etc/tidegate/config.yaml"), yaml).unwrap();
    let inside = |words: &[&str]| {
        let mut command = bound("unshare", "KILL");
        let enter = "mount --rbind /proc $0/proc; exec chroot --userspec=65532:65532 $0 /usr/bin/tidegate \"$@\"";
        command.args(["--mount", "sh", "-ec", enter]).arg(&root).args(words);
        command
    };
    let healthy = || inside(&["healthcheck"]).output().unwrap().status.code();
    assert_eq!(healthy(), Some(1));
    let mut process = Process::start(inside(&["run"]), Signal::TERM);
    let place = Place::parse(&format!("127.0.0.1:{port}"));
    eventually(DEADLINE, "it listens", || try_connect(&place).is_ok());
    drop(talking(&place));
    assert_eq!(healthy(), Some(0));
    process.signal(Signal::TERM);
    assert!(process.wait(DEADLINE).expect("it ends").success());
}

#[test]
fn containerfile_names_what_is_there() {
    let text = file("Containerfile");
    let instructions: Vec<(&str, &str)> = text
        .lines()
        .filter(|line| line.starts_with(|letter: char| letter.is_ascii_uppercase()))
        .filter_map(|line| line.split_once(' '))
        .collect();
    let of =
        |name: &str| instructions.iter().filter(|(word, _)| *word == name).map(|(_, rest)| *rest).collect::<Vec<_>>();
    assert_eq!(of("USER"), ["65532:65532"]);
    assert_eq!(of("FROM").last(), Some(&"scratch"));
    let toolchain = file("rust-toolchain.toml");
    let version = toolchain.lines().find_map(|line| line.strip_prefix("channel = ")).unwrap().trim_matches('"');
    let short = version.split('.').take(2).collect::<Vec<_>>().join(".");
    assert!(of("FROM")[0].starts_with(&format!("rust:{short}-")), "{version}");
    for words in [of("HEALTHCHECK")[0].split_once("CMD ").unwrap().1, of("ENTRYPOINT")[0], of("CMD")[0]] {
        let words: Vec<String> = serde_json::from_str(words).unwrap();
        assert!(["/usr/bin/tidegate", "run"].contains(&&*words[0]), "{words:?}");
    }
    assert!(of("HEALTHCHECK")[0].ends_with("[\"/usr/bin/tidegate\", \"healthcheck\"]"));
    assert!(text.contains("packaging/container-root.sh"));
}

#[test]
fn compose_file_has_a_valid_configuration() {
    let scalars = scalars(&file("packaging/compose.yaml"));
    let configuration = scalars.iter().find(|text| text.contains("listeners:")).expect("a configuration");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.yaml");
    // Names of the network that the engine makes, and a directory of the image.
    let configuration = configuration.replace("/run/tidegate", &folder.path().display().to_string());
    fs::write(&path, configuration).unwrap();
    let checked = Command::new(env!("CARGO_BIN_EXE_tidegate")).arg("check").arg(&path).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    for key in ["services", "tidegate", "dockerfile", "Containerfile", "/etc/tidegate/config.yaml", "stop_grace_period"]
    {
        assert!(scalars.iter().any(|scalar| scalar == key), "{key}");
    }
}
