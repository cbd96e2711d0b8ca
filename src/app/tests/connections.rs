//! Connections that an operator ends: these, no others, and everything that counts them says so.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::Path;

use tokio::sync::mpsc;

use super::*;
use crate::admin::connections::{ConnectionsEnded, NotEnded, end, list};
use crate::log::Logging;
use crate::server::ConnectionFilter;
use crate::stats::termination::Termination;

/// For what comes in time, or never.
const PATIENCE: Duration = Duration::from_secs(30);

/// An echo that says how each of its connections has ended: by an error, or not.
async fn observed_echo() -> (SocketAddr, mpsc::UnboundedReceiver<Option<ErrorKind>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, (ends, ended)) = (listener.local_addr().unwrap(), mpsc::unbounded_channel());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let ends = ends.clone();
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                let copied = tokio::io::copy(&mut from, &mut to).await;
                let _ = ends.send(copied.err().map(|error| error.kind()));
            });
        }
    });
    (address, ended)
}

struct Observed {
    app: App,
    backend_ends: mpsc::UnboundedReceiver<Option<ErrorKind>>,
    folder: tempfile::TempDir,
}

impl Observed {
    /// `listener` is more of the listener `in`, whose pool `p` has the backends `a` and `b`, in turn.
    async fn start(listener: &str) -> Observed {
        let (backend, backend_ends) = observed_echo().await;
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            "workers: 2\nadmin: {{ bind: \"127.0.0.1:0\" }}\nlog: {{ format: json, access: {} }}\n\
             listeners: [{{ name: in, bind: \"127.0.0.1:0\", pool: p, {listener} }}]\n\
             pools: [{{ name: p, balance: round_robin, backends: [{{ name: a, address: \"{backend}\" }}, {{ name: b, address: \
             \"{backend}\" }}] }}]",
            folder.path().join("access.log").display()
        );
        let config = config(&text);
        let app = App::start(config, &Logging::detached(), ControlLink::default()).await.unwrap();
        Observed { app, backend_ends, folder }
    }

    /// Connected to the next backend, and echoed.
    async fn client(&self) -> TcpStream {
        let mut stream = TcpStream::connect(address(&self.app, "in")).await.unwrap();
        echoes(&mut stream).await.unwrap();
        stream
    }

    /// The id of a client's connection.
    async fn id(&self, client: &TcpStream) -> String {
        let (own, list) = (client.local_addr().unwrap().to_string(), list("", &self.app.plane).await.unwrap());
        list.connections.into_iter().find(|row| row.client == own).unwrap().id
    }

    async fn end(&self, query: &str, id: Option<&str>) -> Result<usize, NotEnded> {
        end(query, id, &self.app.plane).await.map(|ConnectionsEnded { ended, .. }| ended)
    }

    async fn wait_for_open(&self, open: usize) {
        wait(|| self.app.open() == open).await;
    }

    /// The access lines, once there are `count`.
    async fn access(&self, lines: usize) -> Vec<serde_json::Value> {
        let file = self.folder.path().join("access.log");
        wait(|| read(&file).len() == lines).await;
        read(&file)
    }

    /// The columns of a row of HAProxy's CSV.
    async fn csv(&self, name: &str) -> HashMap<String, String> {
        let Some(Address::Tcp(port)) = self.app.stats_port() else { panic!("a stats port") };
        let mut stream = TcpStream::connect(port).await.unwrap();
        stream.write_all(b"GET /stats;csv HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let mut lines = text.lines().skip_while(|line| !line.starts_with("# "));
        let columns: Vec<&str> = lines.next().unwrap().trim_start_matches("# ").split(',').collect();
        let row = lines.find(|line| line.split(',').nth(1) == Some(name)).unwrap().split(',');
        columns.into_iter().zip(row).map(|(column, value)| (column.to_owned(), value.to_owned())).collect()
    }
}

async fn wait(condition: impl Fn() -> bool) {
    let until = async {
        while !condition() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, until).await.expect("in time");
}

fn read(file: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn is_reset(client: &mut TcpStream) -> bool {
    let read = timeout(PATIENCE, client.read(&mut [0])).await.expect("it has ended");
    read.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
}

#[tokio::test]
async fn kill_by_id_ends_exactly_that_one() {
    let mut run = Observed::start("").await;
    let mut clients = [run.client().await, run.client().await, run.client().await];
    let id = run.id(&clients[1]).await;
    assert_eq!(run.end("", Some(&id)).await, Ok(1));
    assert!(is_reset(&mut clients[1]).await, "the client sees a reset");
    let backend_end = timeout(PATIENCE, run.backend_ends.recv()).await.expect("it has ended");
    assert_eq!(backend_end, Some(Some(ErrorKind::ConnectionReset)), "and so does the backend");
    run.wait_for_open(2).await;
    for client in [0, 2] {
        echoes(&mut clients[client]).await.unwrap();
    }
    let not_found = run.end("", Some(&id)).await.unwrap_err();
    assert_eq!(
        (not_found.status().as_u16(), not_found.to_string()),
        (404, format!("no open connection has the id {id}"))
    );

    // Counted as ended, without a fault of either side.
    let listener = &run.app.listeners()[0];
    assert_eq!((listener.counters().ended(Termination::Killed), listener.counters().accepted()), (1, 3));
    let pool = &run.app.pools()[0];
    for backend in pool.backends().iter() {
        assert_eq!((backend.counters().failures(), backend.counters().client_aborts()), (0, 0), "{}", backend.name());
    }
    assert_eq!(pool.connections(), 2);
    let line = &run.access(1).await[0];
    assert_eq!(
        (&line["id"], &line["reason"], &line["side"], &line["code"], &line["backend"]),
        (&id.into(), &"killed by an administrator".into(), &"tidegate".into(), &"KD".into(), &"b".into())
    );
    assert_eq!((&line["bytes_in"], &line["bytes_out"]), (&5.into(), &5.into()));
    let row = run.csv("b").await;
    let columns = ["scur", "stot", "econ", "eresp", "cli_abrt", "srv_abrt", "bin", "bout"];
    assert_eq!(columns.map(|column| row[column].as_str()), ["0", "1", "0", "0", "0", "0", "5", "5"]);
    drop(clients);
    assert_eq!(run.app.drain(PATIENCE, std::future::pending()).await, Drained::Clean);
}

#[tokio::test]
async fn filter_ends_those_that_fit() {
    let run = Observed::start("").await;
    let mut clients = [run.client().await, run.client().await, run.client().await, run.client().await];
    for (query, error) in
        [("", "which connections?"), ("pol=p", "`pol` is not known"), ("limit=1", "limit: is for lists")]
    {
        let refused = run.end(query, None).await.unwrap_err();
        assert!(refused.status() == 400 && refused.to_string().starts_with(error), "{query}: {refused}");
    }
    assert_eq!(run.end("backend=a&client=10.0.0.0/8", None).await, Ok(0));
    assert_eq!(run.end("backend=a&client=127.0.0.0/8&older=0s", None).await, Ok(2));
    run.wait_for_open(2).await;
    for client in [0, 2] {
        assert!(is_reset(&mut clients[client]).await);
    }
    for client in [1, 3] {
        echoes(&mut clients[client]).await.unwrap();
    }
    // As cutting a backend does.
    let backend_id = run.app.pools()[0].backends().iter().find(|backend| **backend.name() == *"b").map(|it| it.id());
    let on_b = ConnectionFilter { backend_id, ..ConnectionFilter::default() };
    assert_eq!(run.app.plane.end_connections(on_b).await, 2);
    run.wait_for_open(0).await;
    assert!(run.access(4).await.iter().all(|line| line["code"] == "KD"));
    assert_eq!(run.app.drain(PATIENCE, std::future::pending()).await, Drained::Clean);
}

/// More than a portion of each worker's, among others that come and go.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_are_ended_and_counted() {
    const MANY: usize = 1_200;
    let run = Observed::start("").await;
    let mut held = Vec::new();
    for _ in 0..MANY {
        held.push(run.client().await);
    }
    assert_eq!(run.end("pool=p", None).await, Ok(MANY));
    run.wait_for_open(0).await;
    for client in &mut held {
        assert!(is_reset(client).await);
    }
    assert_eq!(run.app.listeners()[0].counters().ended(Termination::Killed), MANY as u64);
    let mut client = run.client().await;
    echoes(&mut client).await.unwrap();
}

/// One whose first bytes have not come, and one whose backend does not answer.
#[tokio::test]
async fn connections_without_a_backend_are_ended_too() {
    let run = Observed::start("routes: [{ match: { sni: [a.example] }, pool: p }]").await;
    let mut client = TcpStream::connect(address(&run.app, "in")).await.unwrap();
    run.wait_for_open(1).await;
    assert_eq!(run.end("pool=p", None).await, Ok(0), "it may still ask for another pool");
    // Its worker may still be about to take it.
    let ended = async {
        while run.end("listener=in", None).await != Ok(1) {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, ended).await.expect("it is there");
    assert!(matches!(timeout(PATIENCE, client.read(&mut [0])).await, Ok(Ok(0) | Err(_))), "closed");
    let line = &run.access(1).await[0];
    assert_eq!((&line["reason"], &line["backend"]), (&"killed by an administrator".into(), &serde_json::Value::Null));

    // A listening socket whose queue is full: it takes the next connects, and says nothing.
    let full = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None).unwrap();
    rustix::net::bind(&full, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    rustix::net::listen(&full, 0).unwrap();
    let full_address: SocketAddr = rustix::net::getsockname(&full).unwrap().try_into().unwrap();
    let _filling = TcpStream::connect(full_address).await.unwrap();
    let app = start(&format!(
        "workers: 1\nlisteners: [{{ name: in, bind: \"127.0.0.1:0\", pool: p }}]\n\
         pools: [{{ name: p, timeouts: {{ connect: 1h }}, backends: [{{ name: a, address: \"{full_address}\" }}] }}]"
    ))
    .await;
    let mut client = TcpStream::connect(address(&app, "in")).await.unwrap();
    wait(|| app.pools()[0].connections() == 1).await;
    assert_eq!(end("pool=p", None, &app.plane).await, Ok(ConnectionsEnded { ended: 1, unreached: Vec::new() }));
    assert!(is_reset(&mut client).await);
    wait(|| app.listeners()[0].counters().ended(Termination::Killed) == 1).await;

    // They count as connections of the backend, and are cut with it.
    let mut client = TcpStream::connect(address(&app, "in")).await.unwrap();
    wait(|| app.pools()[0].connections() == 1).await;
    let of_backend =
        ConnectionFilter { backend_id: Some(app.pools()[0].backends()[0].id()), ..ConnectionFilter::default() };
    assert_eq!(app.plane.end_connections(of_backend).await, 1);
    assert!(is_reset(&mut client).await);
}
