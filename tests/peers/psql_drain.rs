//! `tidegate drain --wait` before a database: sessions end by themselves, and new ones go elsewhere.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;

use crate::support::postgres::{Postgres, tps};
use crate::support::stats::ADMIN_SOCKET;
use crate::support::tidegate::Tidegate;
use crate::support::{DEADLINE, eventually, tell};

const SESSIONS: usize = 10;

/// A psql that stays, and answers.
struct Session {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Session {
    fn open(mut psql: Command) -> Session {
        psql.args(["-X", "-At"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = psql.spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Session { child, input, output }
    }

    fn ask(&mut self, question: &str) -> String {
        writeln!(self.input, "{question};").unwrap();
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// The port of the server that it has reached.
    fn port(&mut self) -> u16 {
        self.ask("select inet_server_port()").parse().expect("a port")
    }

    fn close(mut self) {
        drop(self.input);
        assert!(self.child.wait().unwrap().success());
    }
}

#[test]
fn drain_waits_for_sessions_under_load() {
    let servers = [Postgres::start(), Postgres::start()];
    let [a, b] = [0, 1].map(|place| servers[place].port());
    let tidegate = Tidegate::start(&format!(
        "{ADMIN_SOCKET}listeners: [{{ name: in, bind: \"127.0.0.1:0\", pool: db }}]\n\
         pools:\n- name: db\n  health: {{ tcp: {{}}, interval: 500ms }}\n  backends:\n\
         \x20 - {{ name: a, address: \"127.0.0.1:{a}\" }}\n  - {{ name: b, address: \"127.0.0.1:{b}\" }}\n"
    ));
    tidegate.wait_for_up("a");
    tidegate.wait_for_up("b");
    let through = tidegate.at("in").tcp().port();
    let config = tidegate.config_file();
    let run = |arguments: &[&str]| {
        let ran = tidegate.command(&[arguments, &["--config", config.to_str().unwrap()]].concat());
        ran.printed().to_owned()
    };
    run(&["drain", "db/b"]);
    let mut sessions: Vec<Session> = (0..SESSIONS).map(|_| Session::open(servers[0].psql(through))).collect();
    sessions.iter_mut().for_each(|session| assert_eq!(session.port(), a));
    run(&["ready", "db/b"]);

    thread::scope(|scope| {
        let load = scope.spawn(|| tps(servers[0].pgbench(through).args(["-n", "-C", "-c", "8", "-j", "2", "-T", "6"])));
        eventually(DEADLINE, "pgbench is on both", || {
            let lines = tidegate.access();
            ["a", "b"].iter().all(|name| lines.iter().filter(|line| line.backend() == Some(name)).count() >= 20)
        });
        let mut drain = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        drain.args(["drain", "db/a", "--wait", "5m", "--config"]).arg(&config);
        let mut drain = drain.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let open = || tidegate.resource("/api/pools/db/backends/a")["connections"].as_u64().unwrap();
        eventually(DEADLINE, "a drains, and pgbench has left it", || {
            tidegate.resource("/api/pools/db/backends/a")["state"] == "drain" && open() == SESSIONS as u64
        });
        for _ in 0..5 {
            let mut new = Session::open(servers[0].psql(through));
            assert_eq!(new.port(), b, "new ones go elsewhere");
            new.close();
        }
        while let Some(mut session) = sessions.pop() {
            assert!(drain.try_wait().unwrap().is_none(), "it waits for {} more", sessions.len() + 1);
            assert_eq!(session.port(), a, "and they go on");
            session.close();
            eventually(DEADLINE, "one less", || open() == sessions.len() as u64);
        }
        let (mut out, mut err) = (String::new(), String::new());
        drain.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        drain.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        assert!(drain.wait().unwrap().success(), "{out}{err}");
        assert!(out.ends_with("db/a has no connections\n"), "{out}");
        assert!(err.contains(" connections left\n"), "{err}");
        let tps = load.join().expect("no error of pgbench");
        tell(&format!("drain --wait of {SESSIONS} sessions, with pgbench -C at {tps} tps and no error"));
    });
    assert_eq!(tidegate.view().pools[0].backends[0].open, 0);
}
