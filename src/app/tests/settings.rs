//! Settings of the whole process that change under load: no connect is refused, no connection lost, no count goes back.

use tokio::task::JoinHandle;

use super::*;
use crate::stats::latency::{Stage, Window};

const CLIENTS: usize = 20;

/// Clients that connect, are echoed and leave, and others that stay.
struct ClientLoad {
    clients: Vec<JoinHandle<io::Result<TcpStream>>>,
    served: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl ClientLoad {
    fn start(to: SocketAddr) -> ClientLoad {
        let (served, stop) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let client = |number: usize| {
            let (served, stop) = (Arc::clone(&served), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut kept = connect(to).await?.0;
                while !stop.load(Ordering::Relaxed) {
                    let (mut stream, _) = connect(to).await?;
                    echoes(&mut stream).await?;
                    echoes(&mut kept).await?;
                    // Some stay for longer than others.
                    if served.fetch_add(1, Ordering::Relaxed) % 50 == number {
                        kept = stream;
                    }
                }
                Ok(kept)
            })
        };
        ClientLoad { clients: (0..CLIENTS).map(client).collect(), served: Arc::clone(&served), stop }
    }

    /// Waits until this number of further connections was served.
    async fn served(&self, more: usize) {
        let (before, deadline) = (self.served.load(Ordering::Relaxed), Instant::now() + Duration::from_secs(20));
        while self.served.load(Ordering::Relaxed) < before + more {
            assert!(Instant::now() < deadline, "nothing is served");
            assert!(self.clients.iter().all(|client| !client.is_finished()), "a client has failed");
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// Ends the clients, none of which has failed. Returns how many connections they have made.
    async fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            echoes(&mut client.await.unwrap().expect("a client has failed")).await.expect("its connection is lost");
        }
        self.served.load(Ordering::Relaxed) + CLIENTS
    }
}

/// A listener and a pool of this backend, after other keys.
fn with(keys: &str, backend: SocketAddr, listener: &str) -> String {
    format!(
        "{keys}\nlisteners: [{{ name: a, bind: \"127.0.0.1:0\", pool: p{listener} }}]\n\
         pools: [{{ name: p, backends: [{{ name: b, address: \"{backend}\" }}] }}]"
    )
}

async fn drained(app: App) {
    assert_eq!(app.drain(Duration::from_secs(10), std::future::pending()).await, Drained::Clean);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn access_log_that_changes_under_load_has_each_connection_once() {
    let (backend, folder) = (backend().await, tempfile::tempdir().unwrap());
    let file = |name: &str| folder.path().join(name).display().to_string();
    let to = |log: &str| with(&format!("workers: 2\nlog: {{ {log} }}"), backend, "");
    let logging = Logging::detached();
    let first = config(&to(&format!("access: {}", file("a"))));
    let mut app = App::start(first, &logging, ControlLink::default()).await.unwrap();
    let load = ClientLoad::start(address(&app, "a"));
    for round in 0..4 {
        for (name, format) in [("a", "json"), ("b", "json"), ("b", "text"), ("a", "text")] {
            load.served(50).await;
            let plan =
                app.apply(config(&to(&format!("format: {format}, access: {}{round}", file(name))))).await.unwrap();
            assert_eq!(plan.to_string(), "~ log");
        }
    }
    load.served(50).await;
    let error = app.apply(config(&to("access: /dev/null/no"))).await.unwrap_err().to_string();
    assert!(error.contains("log.access: cannot open /dev/null/no: Not a directory"), "{error}");
    let connections = load.end().await;
    drained(app).await;
    logging.flush();
    let lines: Vec<String> = std::fs::read_dir(folder.path())
        .unwrap()
        .flat_map(|file| {
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
            text.lines().map(str::to_owned).collect::<Vec<_>>()
        })
        .collect();
    let is_whole = |line: &&String| {
        line.starts_with("{\"time\"") && line.ends_with('}') || line.ends_with("reason=\"client closed\"")
    };
    assert_eq!((lines.len(), lines.iter().filter(is_whole).count()), (connections, connections));
    assert!(lines.iter().any(|line| line.starts_with('{')) && lines.iter().any(|line| !line.starts_with('{')));
    assert_eq!(
        logging.counters().iter().map(crate::log::counters::LogCounters::name).collect::<Vec<_>>(),
        ["process", "access"]
    );
}

#[tokio::test]
async fn access_log_that_fails_is_counted_on_when_another_takes_its_place() {
    let (backend, folder) = (backend().await, tempfile::tempdir().unwrap());
    let logging = Logging::detached();
    let to = |path: &str| config(&with(&format!("workers: 1\nlog: {{ access: {path} }}"), backend, ""));
    let mut app = App::start(to("/dev/full"), &logging, ControlLink::default()).await.unwrap();
    let access = || logging.counters().into_iter().find(|log| log.name() == "access").unwrap();
    drop(connect(address(&app, "a")).await.unwrap());
    let deadline = Instant::now() + Duration::from_secs(20);
    while access().write_errors() == 0 {
        assert!(Instant::now() < deadline, "the line is not counted");
        sleep(Duration::from_millis(1)).await;
    }
    assert!(access().failing().is_some());
    app.apply(to(&folder.path().join("good").display().to_string())).await.unwrap();
    assert_eq!((access().write_errors(), access().failing()), (1, None));
    app.apply(to("off")).await.unwrap();
    assert_eq!((access().write_errors(), access().failing()), (1, None), "a total does not vanish");
    drained(app).await;
}

#[tokio::test]
async fn shutdown_takes_effect_at_once() {
    let backend = backend().await;
    let mut app = start(&with("workers: 1\nshutdown: { drain: 1s }", backend, "")).await;
    let plan = app.apply(config(&with("workers: 1\nshutdown: { drain: 2s }", backend, ""))).await.unwrap();
    assert_eq!((plan.to_string().as_str(), app.config().shutdown.drain), ("~ shutdown", Duration::from_secs(2)));
    drained(app).await;
}

/// A monotonic total of an app.
fn totals(app: &App) -> [u64; 4] {
    let (listener, backend) = (&app.listeners()[0], &app.pools()[0].backends()[0]);
    let bytes = listener.traffic().bytes_in();
    [listener.counters().accepted(), bytes, listener.traffic().bytes_out(), backend.traffic().bytes_in()]
}

async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_come_and_leave_under_load() {
    let (backend, folder) = (backend().await, tempfile::tempdir().unwrap());
    let unix = folder.path().join("s");
    for bind in [", socket: { reuse_port: auto }", ", socket: { reuse_port: false }"] {
        let to = |workers: usize| {
            let text = with(&format!("workers: {workers}"), backend, bind);
            config(&text.replace("\"127.0.0.1:0\"", &format!("[\"127.0.0.1:0\", \"unix:{}\"]", unix.display())))
        };
        let mut app = App::start(to(1), &Logging::detached(), ControlLink::default()).await.unwrap();
        let load = ClientLoad::start(address(&app, "a"));
        let (mut before, mut kept) = (totals(&app), Vec::new());
        for workers in [4, 2, 3, 1, 4, 1] {
            load.served(100).await;
            kept.push(connect(address(&app, "a")).await.unwrap().0);
            let plan = app.apply(to(workers)).await.unwrap();
            assert_eq!((plan.to_string().as_str(), app.plane.workers()), ("~ workers", workers));
            let mut stream = tokio::net::UnixStream::connect(&unix).await.unwrap();
            assert_eq!(stream.read(&mut [0; 4]).await.unwrap(), 4);
            load.served(100).await;
            let now = totals(&app);
            assert!(now.iter().zip(before).all(|(now, before)| *now > before), "{before:?} {now:?}");
            before = now;
        }
        for stream in &mut kept {
            echoes(stream).await.unwrap();
        }
        assert!(app.plane.threads() <= 4, "those that had retired came back first");
        let connections = load.end().await + kept.len() + 6;
        drop(kept);
        eventually("retired workers end with their last connection", || app.plane.threads() == 1).await;
        assert_eq!(app.listeners()[0].counters().accepted(), connections as u64);
        eventually("all bytes are counted", || {
            let [_, bytes_in, bytes_out, to_backend] = totals(&app);
            // Each is greeted with four bytes.
            bytes_in == to_backend && bytes_out == bytes_in + 4 * connections as u64
        })
        .await;
        drained(app).await;
    }
}

/// The kernel goes on giving connections to the sockets of workers that have retired.
#[tokio::test]
async fn sockets_of_retired_workers_are_accepted_from() {
    let backend = backend().await;
    let to = |workers: usize| config(&with(&format!("workers: {workers}"), backend, ""));
    let mut app = App::start(to(8), &Logging::detached(), ControlLink::default()).await.unwrap();
    let size = app.plane.size();
    app.apply(to(1)).await.unwrap();
    for _ in 0..100 {
        echoes(&mut connect(address(&app, "a")).await.unwrap().0).await.unwrap();
    }
    eventually("workers without connections end", || app.plane.threads() == 1).await;
    eventually("fewer workers leave more descriptors", || app.plane.size() > size).await;
    drained(app).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn socket_options_change_under_load() {
    let backend = backend().await;
    let to = |socket: &str| config(&with("workers: 3", backend, &format!(", socket: {{ {socket} }}")));
    let mut app = App::start(to(""), &Logging::detached(), ControlLink::default()).await.unwrap();
    let at = address(&app, "a");
    let load = ClientLoad::start(at);
    for socket in [
        "backlog: 50, nodelay: false, keepalive: 9s",
        "reuse_port: false, fast_open: 5",
        "reuse_port: auto, keepalive: 0s",
        "reuse_port: true, keepalive: 5s",
        "reuse_port: false",
        "reuse_port: true",
    ] {
        load.served(50).await;
        assert_eq!(app.apply(to(socket)).await.unwrap().to_string(), "~ listener a");
        assert_eq!(address(&app, "a"), at);
        load.served(50).await;
    }
    load.end().await;
    drained(app).await;
}

/// The status of an answer of the stats port.
async fn get(at: SocketAddr, path: &str, token: &str) -> io::Result<u16> {
    let mut stream = TcpStream::connect(at).await?;
    let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status"))
}

fn port_of(app: &App) -> SocketAddr {
    match app.stats_port() {
        Some(Address::Tcp(address)) => *address,
        other => panic!("{other:?}"),
    }
}

fn free_port() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Connections of listener `a` that were measured to their end.
async fn measured(app: &App) -> u64 {
    let snapshot = app.snapshot().await.unwrap();
    snapshot.listeners[0].latency.get(Stage::Session, Window::All).map_or(0, |measured| measured.count)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stats_port_moves_without_a_refused_connect_and_goes_on_counting() {
    let (backend, folder) = (backend().await, tempfile::tempdir().unwrap());
    let (first, second, taken) = (free_port(), free_port(), backend);
    let token = folder.path().join("token");
    std::fs::write(&token, "0123456789abcdef0123456789abcdef").unwrap();
    let to = |admin: &str| config(&with(&format!("workers: 2\n{admin}"), backend, ""));
    let at = |port: SocketAddr| to(&format!("admin: {{ bind: \"{port}\" }}"));
    let mut app = App::start(to(""), &Logging::detached(), ControlLink::default()).await.unwrap();
    let connection = async |app: &App| echoes(&mut connect(address(app, "a")).await.unwrap().0).await.unwrap();
    connection(&app).await;
    assert!(app.snapshot().await.is_none());

    assert_eq!(app.apply(at(first)).await.unwrap().to_string(), "~ admin");
    assert_eq!(get(port_of(&app), "/stats", "").await.unwrap(), 200);
    connection(&app).await;
    let mut sessions = 0;
    let deadline = Instant::now() + Duration::from_secs(20);
    while sessions == 0 {
        assert!(Instant::now() < deadline, "nothing is measured");
        sessions = measured(&app).await;
    }

    // While the old one may be closed, the new one answers.
    let ports = [first, free_port(), free_port(), second];
    let asked = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&asked);
    let client = tokio::spawn(async move {
        let mut place = 0;
        while place < ports.len() - 1 {
            if get(ports[place], "/livez", "").await.ok() != Some(200) {
                place += 1;
                assert_eq!(get(ports[place], "/livez", "").await.unwrap(), 200, "neither answers");
            }
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    for port in &ports[1..] {
        let before = asked.load(Ordering::Relaxed);
        eventually("it is asked", || asked.load(Ordering::Relaxed) > before + 5 || client.is_finished()).await;
        app.apply(at(*port)).await.unwrap();
        assert_eq!(port_of(&app), *port);
    }
    client.await.unwrap();
    assert!(TcpStream::connect(first).await.is_err(), "the old one is closed");

    let error = app.apply(at(taken)).await.unwrap_err().to_string();
    assert!(error.contains(&format!("admin: cannot listen on {taken}: it is in use")), "{error}");
    assert_eq!(get(second, "/stats", "").await.unwrap(), 200);

    let guarded = format!("admin: {{ bind: \"{second}\", token_file: {} }}", token.display());
    app.apply(to(&guarded)).await.unwrap();
    assert_eq!(get(second, "/stats", "").await.unwrap(), 401);
    assert_eq!(get(second, "/stats", "0123456789abcdef0123456789abcdef").await.unwrap(), 200);
    app.apply(at(second)).await.unwrap();
    assert_eq!(get(second, "/stats", "").await.unwrap(), 200);

    app.apply(to("")).await.unwrap();
    assert!(TcpStream::connect(second).await.is_err() && app.snapshot().await.is_none());
    app.apply(at(first)).await.unwrap();
    assert!(measured(&app).await >= sessions, "histograms go on");
    drained(app).await;
}

#[tokio::test]
async fn stats_port_on_a_unix_socket_keeps_its_file_for_another_token() {
    let (backend, folder) = (backend().await, tempfile::tempdir().unwrap());
    let (file, token) = (folder.path().join("s"), folder.path().join("token"));
    std::fs::write(&token, "0123456789abcdef0123456789abcdef").unwrap();
    let to = |keys: &str| {
        config(&with(&format!("workers: 1\nadmin: {{ bind: \"unix:{}\"{keys} }}", file.display()), backend, ""))
    };
    let mut app = App::start(to(""), &Logging::detached(), ControlLink::default()).await.unwrap();
    app.apply(to(&format!(", token_file: {}", token.display()))).await.unwrap();
    tokio::net::UnixStream::connect(&file).await.unwrap();
    app.apply(config(&with("workers: 1", backend, ""))).await.unwrap();
    assert!(!file.exists());
    drained(app).await;
}
