//! A process that takes other configurations over while it serves.

mod connections;

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::config::{files::Unread, parse};

/// A backend that says which of its addresses a client has reached, and then echoes.
async fn backend() -> SocketAddr {
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let IpAddr::V4(own) = stream.local_addr()?.ip() else { return Ok(()) };
                stream.write_all(&own.octets()).await?;
                let (mut from, mut to) = stream.split();
                tokio::io::copy(&mut from, &mut to).await.map(|_| ())
            });
        }
    });
    SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)
}

fn config(text: &str) -> Config {
    parse("test", text, &Unread)
        .unwrap_or_else(|failure| panic!("{}", failure.render(crate::config::Style::Plain)))
        .config
}

async fn start(text: &str) -> App {
    App::start(config(text), &Logging::detached(), ControlLink::default()).await.unwrap()
}

fn address(app: &App, listener: &str) -> SocketAddr {
    let addresses = app.addresses();
    match addresses.iter().find(|(name, _)| **name == *listener).map(|(_, address)| address) {
        Some(Address::Tcp(address)) => *address,
        other => panic!("{listener}: {other:?}"),
    }
}

/// A client, and the backend's address that it has reached.
async fn connect(to: SocketAddr) -> io::Result<(TcpStream, Ipv4Addr)> {
    let mut stream = TcpStream::connect(to).await?;
    let mut own = [0; 4];
    stream.read_exact(&mut own).await?;
    Ok((stream, own.into()))
}

async fn echoes(stream: &mut TcpStream) -> io::Result<()> {
    let mut back = [0; 5];
    stream.write_all(b"hello").await?;
    stream.read_exact(&mut back).await?;
    assert_eq!(&back, b"hello");
    Ok(())
}

#[tokio::test]
async fn apply_changes_what_another_configuration_says_and_keeps_the_rest() {
    let port = backend().await.port();
    let pool = |hosts: &[u8]| {
        let backends: Vec<String> =
            hosts.iter().map(|host| format!("{{ name: b{host}, address: \"127.0.0.{host}:{port}\" }}")).collect();
        format!("pools: [{{ name: p, backends: [{}] }}]", backends.join(", "))
    };
    let listeners = |names: &[&str]| {
        let listeners: Vec<String> =
            names.iter().map(|name| format!("{{ name: {name}, bind: \"127.0.0.1:0\", pool: p }}")).collect();
        format!("workers: 2\nlisteners: [{}]\n", listeners.join(", "))
    };
    let mut app = start(&(listeners(&["a", "b"]) + &pool(&[1]))).await;
    let (a, b) = (address(&app, "a"), address(&app, "b"));
    let (mut of_a, backend) = connect(a).await.unwrap();
    let (mut of_b, _) = connect(b).await.unwrap();
    assert_eq!(backend, Ipv4Addr::new(127, 0, 0, 1));
    let id = app.listeners()[0].id();

    let plan = app.apply(config(&(listeners(&["a", "c"]) + &pool(&[2, 3])))).await.unwrap();
    assert_eq!(
        plan.to_string(),
        "+ listener c: + 127.0.0.1:0\n- listener b: - 127.0.0.1:0\n~ pool p: + b2, + b3, - b1"
    );
    assert_eq!(address(&app, "a"), a, "the same socket");
    assert_eq!((app.listeners()[0].id(), app.listeners()[0].counters().accepted()), (id, 1));
    let mut reached = HashSet::new();
    for _ in 0..4 {
        reached.insert(connect(a).await.unwrap().1);
        reached.insert(connect(address(&app, "c")).await.unwrap().1);
    }
    assert_eq!(reached, HashSet::from([Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::new(127, 0, 0, 3)]));
    // What began before goes on, by the backend that leaves and the listener that is gone.
    echoes(&mut of_a).await.unwrap();
    echoes(&mut of_b).await.unwrap();
    let closed = async {
        while TcpStream::connect(b).await.is_ok() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_secs(10), closed).await.expect("the listener's socket is closed");
    assert!(app.open() >= 2);

    // Nothing changes by one that cannot be taken over, and it says all that is wrong.
    let taken = format!(
        "workers: 2\nlisteners: [{{ name: a, bind: \"127.0.0.1:0\", pool: p, socket: {{ mptcp: true }} }}, {{ name: d, bind: \"127.0.0.1:{port}\", pool: p }}]\n"
    );
    let error =
        app.apply(config(&(taken + "log: { access: /dev/null/no }\n" + &pool(&[9])))).await.unwrap_err().to_string();
    assert!(error.contains("listeners.a.socket.mptcp cannot change while tidegate runs"), "{error}");
    assert!(error.contains("log.access: cannot open /dev/null/no"), "{error}");
    assert!(error.contains(&format!("listener d: cannot listen on 127.0.0.1:{port}")), "{error}");
    assert!(connect(a).await.unwrap().1 != Ipv4Addr::new(127, 0, 0, 9));
    assert_eq!(app.listeners().len(), 2);

    drop((of_a, of_b));
    assert_eq!(app.drain(Duration::from_secs(10), std::future::pending()).await, Drained::Clean);
}

/// Each client connects, is echoed and leaves, or stays; none may fail, whichever addresses the name has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_that_change_under_load_lose_no_connection() {
    const ADDRESSES: u8 = 100;
    const ROUNDS: u8 = 20;
    let port = backend().await.port();
    let app = start(&format!(
        "workers: 2\nlisteners: [{{ name: a, bind: \"127.0.0.1:0\", pool: p }}]\n\
         pools: [{{ name: p, balance: least_connections, backends: [{{ name: db, address: \"localhost:{port}\" }}], \
         health: {{ tcp: {{}}, interval: 100ms }} }}]"
    ))
    .await;
    let (to, pool) = (address(&app, "a"), Arc::clone(&app.pools()[0]));
    let (served, reached) = (Arc::new(AtomicUsize::new(0)), Arc::new(std::sync::Mutex::new(HashSet::new())));
    let clients: Vec<_> = (0..20)
        .map(|client| {
            let (served, reached) = (Arc::clone(&served), Arc::clone(&reached));
            tokio::spawn(async move {
                let mut kept = connect(to).await?.0;
                loop {
                    let (mut stream, backend) = connect(to).await?;
                    echoes(&mut stream).await?;
                    echoes(&mut kept).await?;
                    reached.lock().unwrap().insert(backend);
                    // Some stay with the address that they have, for a while.
                    if served.fetch_add(1, Ordering::Relaxed) % 50 == client {
                        kept = stream;
                    }
                }
                #[allow(unreachable_code, reason = "names the type of the error")]
                Ok::<(), io::Error>(())
            })
        })
        .collect();
    let at = |host: u8| Address::Tcp(SocketAddr::new(Ipv4Addr::new(127, 0, 1, host).into(), port));
    for round in 0..ROUNDS {
        // Half of them, others each time.
        let hosts = (1..=ADDRESSES).filter(|host| (host ^ round) % 2 == 0 || host % 7 == round % 7);
        pool.resolve("db", Ok(hosts.map(at).collect()));
        let (before, deadline) = (served.load(Ordering::Relaxed), Instant::now() + Duration::from_secs(20));
        while served.load(Ordering::Relaxed) < before + 200 {
            assert!(Instant::now() < deadline, "nothing is served in round {round}");
            assert!(clients.iter().all(|client| !client.is_finished()), "a client has failed in round {round}");
            sleep(Duration::from_millis(1)).await;
        }
    }
    for client in clients {
        client.abort();
        if let Ok(Err(error)) = client.await {
            panic!("a client has failed: {error}");
        }
    }
    assert!(reached.lock().unwrap().len() > ADDRESSES as usize / 2, "{reached:?}");
    let named = pool.backends().iter().filter(|it| it.name().starts_with("db@127.0.1.")).count();
    assert!(named > ADDRESSES as usize / 2, "{named}");
    assert_eq!(app.drain(Duration::from_secs(10), std::future::pending()).await, Drained::Clean);
    assert_eq!(pool.connections(), 0);
}

mod settings;
