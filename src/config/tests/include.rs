//! Configurations in several files.

use std::os::unix::fs::symlink;

use super::*;
use crate::config::files::Unread;

/// Files of a test alone, the first of which is the configuration.
struct TestFiles(tempfile::TempDir);

impl TestFiles {
    fn new(files: &[(&str, &str)]) -> TestFiles {
        let directory = tempfile::tempdir().unwrap();
        let files_of_test = TestFiles(directory);
        for (name, text) in files {
            files_of_test.write(name, text);
        }
        files_of_test
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn load(&self) -> Result<Loaded, Failure> {
        load(&self.path("main.yaml"), &Unread)
    }

    /// The errors, or the warnings of what is valid, as `file:line:column message`, without the directory.
    fn report(&self) -> Vec<String> {
        let text = match self.load() {
            Ok(loaded) => loaded.render_warnings(Style::Plain),
            Err(failure) => failure.to_string(),
        };
        let text = text.replace(&format!("{}/", self.0.path().display()), "");
        let (mut lines, mut report) = (text.lines().peekable(), Vec::new());
        while let Some(line) = lines.next() {
            if let Some(message) = line.strip_prefix("error: ").or(line.strip_prefix("warning: ")) {
                let place = lines.next_if(|line| line.trim_start().starts_with("--> "));
                let place = place.map_or("", |place| place.trim_start().trim_start_matches("--> "));
                report.push(format!("{place} {message}"));
            }
        }
        report
    }
}

const LISTENER: &str = "listeners: [{ name: a, bind: 127.0.0.1:1, pool: b }]\n";
const POOL: &str = "pools: [{ name: b, backends: [{ address: 127.0.0.1:2 }] }]\n";

fn names(config: &Config) -> (Vec<&str>, Vec<&str>) {
    let listeners = config.listeners.iter().map(|it| &*it.name).collect();
    (listeners, config.pools.iter().map(|it| &*it.name).collect())
}

#[test]
fn included_files_add_listeners_pools_and_sections() {
    let files = TestFiles::new(&[
        ("main.yaml", &format!("include: [conf.d/*.yaml, 'more/[!x]?.yml']\n{POOL}")),
        ("conf.d/20-c.yaml", "pools: [{ name: c, backends: [{ address: 127.0.0.1:3 }] }]\nx-y: 1\n"),
        (
            "conf.d/10-l.yaml",
            "\u{feff}listeners: [{ name: l, bind: 127.0.0.1:4, pool: c }, { name: m, bind: 127.0.0.1:5, pool: b }]\n",
        ),
        ("conf.d/.hidden.yaml", "not even YAML: ["),
        ("conf.d/30-empty.yaml", "# nothing yet\n"),
        ("conf.d/notes.txt", "["),
        ("more/a1.yml", "log: { level: warn }\npools:\n  - name: d\n    backends: [{ address: 127.0.0.1:6 }]\n"),
        ("more/x1.yml", "["),
    ]);
    fs::create_dir(files.path("conf.d/40-directory.yaml")).unwrap();
    let loaded = files.load().unwrap_or_else(|failure| panic!("{failure}"));
    assert_eq!(names(&loaded.config), (vec!["l", "m"], vec!["b", "c", "d"]));
    assert_eq!(loaded.config.listeners[0].pool, PoolIndex(1));
    assert_eq!(loaded.config.log.level, LogLevel::Warn);
    assert_eq!(
        files.report(),
        [
            "main.yaml:1:11 include[0]: conf.d/40-directory.yaml is a directory, which is not included",
            "more/a1.yml:3:11 pools[0].name: pool `d` is not used"
        ]
    );
    let texts = loaded.texts();
    let included: Vec<&str> = texts.included().map(|name| name.rsplit('/').next().unwrap()).collect();
    assert_eq!(included, ["10-l.yaml", "20-c.yaml", "30-empty.yaml", "a1.yml"]);
    assert_eq!(read_texts(&files.path("main.yaml"), &Unread).unwrap().0, texts);
}

#[test]
fn faults_are_at_their_place_in_their_file() {
    let files = TestFiles::new(&[
        ("main.yaml", &format!("include: conf.d/*.yaml\nlog: {{ level: info }}\n{LISTENER}{POOL}")),
        (
            "conf.d/1.yaml",
            "pools:\n  - name: c\n    backends: [{ address: 127.0.0.1:3, weight: 1001 }]\n  - name: b\n    backends: [{ address: 127.0.0.1:3 }]\n",
        ),
        ("conf.d/2.yaml", "log: {}\nlisteners:\n  - { name: z, bind: 127.0.0.1:1, pool: nope }\n"),
        ("conf.d/3.yaml", "pool: []\ninclude: x.yaml\n"),
        ("conf.d/4.yaml", "- a list\n"),
    ]);
    assert_eq!(
        files.report(),
        [
            "conf.d/1.yaml:3:48 pools[0].backends[0].weight: 1001 is out of range",
            "conf.d/1.yaml:4:11 pools[1].name: duplicate pool name `b`",
            "conf.d/2.yaml:1:1 `log` is in two files",
            "conf.d/2.yaml:3:22 listeners[0].bind: `127.0.0.1:1` is bound twice",
            "conf.d/2.yaml:3:41 listeners[0].pool: there is no pool `nope`",
            "conf.d/3.yaml:1:1 unknown key `pool`",
            "conf.d/3.yaml:2:1 an included file includes no others",
            "conf.d/4.yaml:1:1 expected a mapping with listeners, pools or other sections",
        ]
    );
    let report = files.load().unwrap_err().to_string();
    // Both places of what is given twice, with their lines.
    for line in ["log: { level: info }", "2 | log: { level: info }", "main.yaml:2:1", "1 | log: {}"] {
        assert!(report.contains(line), "{line}: {report}");
    }
    let errors = files.load().unwrap_err().errors();
    assert!(errors[0].file.ends_with("/conf.d/1.yaml") && errors[0].line == Some(3), "{errors:?}");
}

#[test]
fn syntax_error_is_that_of_its_file() {
    let files =
        TestFiles::new(&[("main.yaml", &format!("include: a.yaml\n{LISTENER}{POOL}")), ("a.yaml", "pools:\n\t- x\n")]);
    assert_eq!(files.report(), ["a.yaml:2:1 tab in the indentation"]);
    assert!(as_one_text(&files.path("main.yaml"), &Unread).is_err());
}

#[test]
fn file_that_cannot_be_included_is_an_error_at_the_pattern() {
    let main = |include: &str| {
        TestFiles::new(&[("main.yaml", &format!("include: {include}\n{LISTENER}{POOL}")), ("dir/a.yaml", "")])
    };
    let report = |include: &str| {
        let files = main(include);
        fs::write(files.path("dir/latin.conf"), b"a\n\xff").unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, files.path("dir/pipe"), rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
        symlink("elsewhere/gone.yaml", files.path("dir/link")).unwrap();
        symlink("loop", files.path("dir/loop")).unwrap();
        fs::create_dir(files.path("dir/old")).unwrap();
        files.report()
    };
    for (include, expected) in [
        ("none.yaml", "main.yaml:1:10 include: cannot read none.yaml: No such file or directory (os error 2)"),
        ("dir", "main.yaml:1:10 include: cannot read dir: Is a directory (os error 21)"),
        ("dir/pipe", "main.yaml:1:10 include: dir/pipe is no regular file"),
        (
            "dir/link",
            "main.yaml:1:10 include: dir/link is a symbolic link to elsewhere/gone.yaml, which does not exist",
        ),
        // The same, where a pattern fits them.
        (
            "'dir/li*'",
            "main.yaml:1:10 include: dir/link is a symbolic link to elsewhere/gone.yaml, which does not exist",
        ),
        (
            "'*/link'",
            "main.yaml:1:10 include: dir/link is a symbolic link to elsewhere/gone.yaml, which does not exist",
        ),
        ("'dir/p*'", "main.yaml:1:10 include: dir/pipe is no regular file"),
        ("'*/pipe'", "main.yaml:1:10 include: dir/pipe is no regular file"),
        ("'dir/lo*'", "main.yaml:1:10 include: cannot read dir/loop: Too many levels of symbolic links (os error 40)"),
        ("['dir/*.conf2', 'dir/ol*']", "main.yaml:1:26 include[1]: dir/old is a directory, which is not included"),
        ("dir/*.conf", "main.yaml:1:10 include: dir/latin.conf:2: not UTF-8 text"),
        ("[dir/a.yaml, ./dir/a.yaml]", "main.yaml:1:23 include[1]: ./dir/a.yaml is included twice, or includes itself"),
        ("main.yaml", "main.yaml:1:10 include: main.yaml is included twice, or includes itself"),
        ("none/*.yaml", "main.yaml:1:10 include: there is no directory none"),
        ("'**/a.yaml'", "main.yaml:1:10 include: `**/a.yaml` is not a pattern of file names"),
        ("5", "main.yaml:1:10 include: expected text, found the number 5"),
    ] {
        assert_eq!(report(include), [expected], "{include}");
    }
    // Patterns may have what is there already, and nothing.
    for include in ["'*.yaml'", "[dir/a.yaml, 'dir/*.yaml']", "'dir/*.none'", "'*/none.yaml'", "", "[]"] {
        assert_eq!(report(include), [""; 0], "{include}");
    }
}

#[test]
fn variables_are_in_patterns_and_included_files() {
    struct Home(String);
    impl Files for Home {
        fn variable(&self, name: &str) -> Option<Vec<u8>> {
            (name == "HERE").then(|| self.0.clone().into_bytes())
        }
    }
    let files = TestFiles::new(&[
        ("main.yaml", &format!("include: ${{HERE}}/*.yml\n{LISTENER}{POOL}")),
        ("sub/b.yml", "# ä\npools: [{ name: '${THERE}', backends: [] }]\n"),
    ]);
    let failure = load(&files.path("main.yaml"), &Home(files.path("sub").display().to_string())).unwrap_err();
    let errors = failure.errors();
    assert_eq!((errors.len(), errors[0].line, errors[0].column), (1, Some(2), Some(18)), "{failure}");
    assert!(errors[0].message.ends_with("the environment has no variable THERE"));
}

#[test]
fn number_and_size_of_files_are_bounded() {
    let files = TestFiles::new(&[("main.yaml", &format!("include: many/*\n{LISTENER}{POOL}"))]);
    fs::create_dir(files.path("many")).unwrap();
    for number in 0..1001 {
        fs::write(files.path(&format!("many/{number}")), "").unwrap();
    }
    assert_eq!(files.report(), ["main.yaml:1:10 include: more than 1000 files are included"]);

    let files = TestFiles::new(&[("main.yaml", &format!("include: large/*\n{LISTENER}{POOL}"))]);
    for name in ["large/a", "large/b", "large/c"] {
        files.write(name, &format!("# {}\n", "x".repeat(6_000_000)));
    }
    assert_eq!(files.report(), ["main.yaml:1:10 include: large/c makes the configuration larger than 16 MiB"]);
}

#[test]
fn text_that_is_no_file_includes_nothing() {
    let report = parse("PUT", &format!("include: [/etc/*.yaml]\n{LISTENER}{POOL}"), &Unread).unwrap_err().to_string();
    assert!(report.contains("`/etc/*.yaml` cannot be included: this configuration is no file"), "{report}");
    for include in ["include:", "include: []"] {
        loaded(&format!("{include}\n{LISTENER}{POOL}"));
    }
}

/// What a command sends to an instance that reads no other files.
#[test]
fn several_files_are_one_text() {
    let files = TestFiles::new(&[
        (
            "main.yaml",
            &format!(
                "x-t: &t {{ timeouts: {{ idle: 7s }} }}\ninclude: conf.d/*\nlisteners:\n  - {{ name: a, bind: 127.0.0.1:1, pool: b, <<: *t }}\n{POOL}"
            ),
        ),
        ("conf.d/b", "listeners: [{ name: c, bind: '127.0.0.1:${PORT:-7}', pool: b }]\nlog: { access: off }\n"),
    ]);
    let text = as_one_text(&files.path("main.yaml"), &Unread).unwrap();
    assert_eq!(loaded(&text).config, files.load().unwrap().config);
    assert!(text.contains("\"127.0.0.1:${PORT:-7}\" # ") && text.contains("conf.d/b:1:"), "{text}");
    // A pattern that is not known here is unknown elsewhere too; a value may be known.
    files.write("main.yaml", &format!("include: '${{NO_SUCH_VARIABLE}}/*'\n{LISTENER}{POOL}"));
    assert_eq!(as_one_text(&files.path("main.yaml"), &Unread).unwrap_err().errors().len(), 1);
    files.write("main.yaml", &format!("include: conf.d/*\nworkers: '${{NO_SUCH_VARIABLE}}'\n{LISTENER}{POOL}"));
    assert!(as_one_text(&files.path("main.yaml"), &Unread).unwrap().contains("${NO_SUCH_VARIABLE}"));
    files.write("main.yaml", "no: [yaml");
    assert_eq!(as_one_text(&files.path("main.yaml"), &Unread).unwrap(), "no: [yaml");
    assert!(admin_section(&files.path("main.yaml")).is_none());
}

#[test]
fn admin_section_is_found_in_an_included_file() {
    let files = TestFiles::new(&[
        ("main.yaml", &format!("include: conf.d/*\n{LISTENER}pools: wrong\n")),
        ("conf.d/admin", "admin: { bind: '127.0.0.1:${ADMIN_PORT_OF_NO_ONE:-9907}' }\n"),
    ]);
    let admin = admin_section(&files.path("main.yaml")).unwrap();
    assert_eq!(admin.bind, [Address::Tcp("127.0.0.1:9907".parse().unwrap())]);
}
