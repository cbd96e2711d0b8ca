//! Probes of real sockets, and what becomes of their outcomes.

mod roles;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};

use super::observation::Observation;
use super::*;
use crate::config::model::{self, BackendAddress, HealthCheck, HttpCheck, Initial};
use crate::pool::Excluded;
use crate::pool::testing::{backends, capture_log, health, pool};
use crate::stats::database::{DatabaseState, ServerRole};
use crate::stats::registry::Registry;

const PROBE_TIMEOUT: Duration = Duration::from_millis(200);

/// A server that does the same with every connection.
async fn serve<F>(each: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(each(stream));
        }
    });
    address
}

/// Reads a request to the empty line, and answers.
async fn answer(mut stream: TcpStream, bytes: &[u8]) -> io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") && !request.ends_with(b"PING\r\n") {
        request.push(stream.read_u8().await?);
    }
    stream.write_all(bytes).await?;
    stream.shutdown().await
}

fn http(body: Option<&str>) -> HealthCheck {
    HealthCheck::Http(HttpCheck {
        path: "/health".to_owned().into(),
        method: "GET".into(),
        host: None,
        headers: Vec::new().into(),
        status: 200..=399,
        body: body.map(|body| body.as_bytes().to_vec().into()),
        tls: None,
    })
}

fn ping() -> HealthCheck {
    HealthCheck::Exchange { send: b"PING\r\n".to_vec().into(), expect: b"+PONG".to_vec().into() }
}

/// A pool of one backend that is checked like this, every 20 ms.
fn checked(check: HealthCheck, address: BackendAddress) -> PoolConfig {
    let mut config = pool(backends(&[1]));
    config.backends[0].address = address;
    let interval = Duration::from_millis(20);
    config.health = Some(Health { interval, timeout: PROBE_TIMEOUT, ..health(check) });
    config
}

fn context() -> CheckContext {
    let (_, readings) = watch::channel(PasswordReading::default());
    CheckContext::new(None, DatabaseShared::new(readings), SharedProbes::default())
}

fn checker(config: PoolConfig) -> HealthChecker {
    let rise_fall = RiseFall::new(config.health.as_ref().unwrap());
    let pool = Pool::new(config, &Registry::default(), 1);
    let id = pool.backends()[0].id();
    HealthChecker { pool, context: Arc::new(context()), id, rise_fall, probe: None, waiting: None }
}

fn settle(checker: &mut HealthChecker, result: Result<(), ProbeFailure>, took: Duration) {
    let backend = Arc::clone(&checker.pool.backends()[0]);
    let (began, result) = (Instant::now(), result.map(|()| Observation::default()));
    let outcome = ProbeOutcome { began, ended: began, result };
    let judgement = checker.context.roles.judge(&checker.pool, &checker.pool.settings(), &backend, &outcome, false);
    checker.settle(&backend, &judgement, took);
    checker.context.roles.conclude(&checker.pool, &judgement);
}

/// One probe of the first backend, judged.
async fn probe(checker: &mut HealthChecker) -> Result<(), ProbeFailure> {
    let (settings, backend) = (checker.pool.settings(), Arc::clone(&checker.pool.backends()[0]));
    let health = settings.health.as_ref().unwrap();
    let outcome = checker.outcome(&settings, health, &backend, Instant::now()).await;
    checker.context.roles.judge(&checker.pool, &settings, &backend, &outcome, false).verdict
}

/// One probe: `pass`, or the reason.
async fn outcome(check: HealthCheck, address: impl Into<BackendAddress>) -> String {
    match probe(&mut checker(checked(check, address.into()))).await {
        Ok(()) => "pass".into(),
        Err(ProbeFailure::Backend(reason)) => reason,
        Err(ProbeFailure::WrongRole(reason)) => format!("role: {reason}"),
        Err(ProbeFailure::Unfit(reason)) => format!("unfit: {reason}"),
        Err(ProbeFailure::Full(reason)) => format!("full: {reason}"),
        Err(ProbeFailure::Local(reason)) => format!("ours: {reason}"),
    }
}

impl From<SocketAddr> for BackendAddress {
    fn from(address: SocketAddr) -> BackendAddress {
        BackendAddress::Ip(address)
    }
}

/// An address that nobody listens on.
async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// Waits for a condition, but not for ever.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "still not: {what}");
        time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn tcp_passes_once_connected() {
    let address = serve(|_| async { Ok(()) }).await;
    assert_eq!(outcome(HealthCheck::Tcp, address).await, "pass");
    assert_eq!(outcome(HealthCheck::Tcp, nobody().await).await, "connection refused");
}

#[tokio::test]
async fn unix_sockets() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let at = || BackendAddress::Unix(path.clone());
    assert_eq!(outcome(HealthCheck::Tcp, at()).await, "no such socket");
    let listener = UnixListener::bind(&path).unwrap();
    assert_eq!(outcome(HealthCheck::Tcp, at()).await, "pass");
    drop(listener);
    assert_eq!(outcome(HealthCheck::Tcp, at()).await, "connection refused");
}

#[tokio::test]
async fn http_statuses_and_bodies() {
    let ok = serve(|s| answer(s, b"HTTP/1.1 200 OK\r\n\r\nall is ok")).await;
    assert_eq!(outcome(http(None), ok).await, "pass");
    assert_eq!(outcome(http(Some("is ok")), ok).await, "pass");
    assert_eq!(outcome(http(Some("isn't")), ok).await, "body lacks \"isn\\'t\"");
    let ill = serve(|s| answer(s, b"HTTP/1.1 503 Service Unavailable\r\n\r\n")).await;
    assert_eq!(outcome(http(None), ill).await, "status 503");
    let other = serve(|s| answer(s, b"220 mail ESMTP\r\n")).await;
    assert_eq!(outcome(http(None), other).await, "answer is not HTTP");
    let chunks = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nall\r\n6\r\n is ok\r\n0\r\n\r\n";
    let chunked = serve(|s| answer(s, chunks)).await;
    assert_eq!(outcome(http(Some("all is ok")), chunked).await, "pass");
    assert_eq!(outcome(http(None), nobody().await).await, "connection refused");
}

#[tokio::test]
async fn answers_in_single_bytes() {
    let slow = serve(|mut stream: TcpStream| async move {
        stream.set_nodelay(true)?;
        for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" {
            stream.write_u8(*byte).await?;
            tokio::task::yield_now().await;
        }
        time::sleep(Duration::from_secs(60)).await;
        Ok(())
    })
    .await;
    assert_eq!(outcome(http(Some("ok")), slow).await, "pass");
}

#[tokio::test]
async fn silence_and_hanging_up() {
    let silent = serve(|stream: TcpStream| async move {
        time::sleep(Duration::from_secs(60)).await;
        drop(stream);
        Ok(())
    })
    .await;
    let closing = serve(|mut stream: TcpStream| async move {
        let _ = stream.read(&mut [0; 1024]).await?;
        Ok(())
    })
    .await;
    let resetting = serve(|stream: TcpStream| async move {
        stream.set_zero_linger()?;
        let mut stream = stream;
        let _ = stream.read(&mut [0; 1024]).await?;
        Ok(())
    })
    .await;
    for check in [http(None), http(Some("ok")), ping()] {
        assert_eq!(outcome(check.clone(), silent).await, "timed out after 200ms");
        assert_eq!(outcome(check.clone(), closing).await, "closed without an answer");
        assert_eq!(outcome(check, resetting).await, "reset");
    }
}

#[tokio::test]
async fn endless_answers_are_bounded() {
    async fn endless(mut stream: TcpStream, start: &str, line: &str) -> io::Result<()> {
        stream.write_all(start.as_bytes()).await?;
        let lines = line.repeat(1_000);
        loop {
            stream.write_all(lines.as_bytes()).await?;
        }
    }
    let fields = serve(|s| endless(s, "HTTP/1.1 200 OK\r\n", "X: y\r\n")).await;
    assert_eq!(outcome(http(None), fields).await, "pass");
    assert_eq!(outcome(http(Some("ok")), fields).await, "head is longer than 16 KiB");
    let field = serve(|s| endless(s, "HTTP/1.1 200 OK\r\nX: ", "yyyyyyyy")).await;
    assert_eq!(outcome(http(Some("ok")), field).await, "head is longer than 16 KiB");
    let body = serve(|s| endless(s, "HTTP/1.1 200 OK\r\n\r\n", "yyyyyyyy")).await;
    assert_eq!(outcome(http(Some("ok")), body).await, "body lacks \"ok\" in its first 64 KiB");
    let noise = serve(|s| endless(s, "", "+PINGPINGPING")).await;
    let reason = outcome(ping(), noise).await;
    assert!(reason.starts_with("answer begins with \"+PING") && reason.len() < 130, "{reason}");
}

#[tokio::test]
async fn exchanges() {
    let redis = serve(|s| answer(s, b"+PONG\r\n")).await;
    assert_eq!(outcome(ping(), redis).await, "pass");
    let ill = serve(|s| answer(s, b"-ERR\x07")).await;
    assert_eq!(outcome(ping(), ill).await, "answer begins with \"-ERR\\x07\" instead of \"+PONG\"");
    let short = serve(|s| answer(s, b"+PO")).await;
    assert_eq!(outcome(ping(), short).await, "answer ends after \"+PO\", expected \"+PONG\"");
    let greeting = serve(|mut stream: TcpStream| async move { stream.write_all(b"220 mail\r\n").await }).await;
    let banner = HealthCheck::Exchange { send: Vec::new().into(), expect: b"220 ".to_vec().into() };
    assert_eq!(outcome(banner, greeting).await, "pass");
}

#[tokio::test]
async fn another_port() {
    let address = serve(|_| async { Ok(()) }).await;
    let mut config = checked(HealthCheck::Tcp, nobody().await.into());
    if let Some(health) = &mut config.health {
        health.port = Some(address.port());
    }
    assert_eq!(probe(&mut checker(config)).await, Ok(()));
}

#[tokio::test]
async fn a_name_without_addresses_is_no_success() {
    let name = BackendAddress::Name { host: "db.example".into(), port: 80 };
    assert_eq!(outcome(HealthCheck::Tcp, name).await, "name is not resolved yet");
}

#[tokio::test]
async fn one_of_several_addresses_is_enough() {
    // "localhost" may be ::1 as well, where nobody listens.
    let address = serve(|_| async { Ok(()) }).await;
    let name = BackendAddress::Name { host: "localhost".into(), port: address.port() };
    let mut checker = checker(checked(HealthCheck::Tcp, name));
    let mut resolver = crate::pool::resolve::Resolver::new(std::slice::from_ref(&checker.pool));
    resolver.resolve_all(Duration::from_secs(5)).await;
    assert_eq!(probe(&mut checker).await, Ok(()));
}

#[tokio::test]
async fn goes_up_and_down_and_up_again_and_says_so_once() {
    static WELL: AtomicBool = AtomicBool::new(true);
    async fn moody(stream: TcpStream) -> io::Result<()> {
        let status = if WELL.load(SeqCst) { "200 OK" } else { "500 Oh" };
        answer(stream, format!("HTTP/1.1 {status}\r\n\r\n").as_bytes()).await
    }
    let (log, _guard) = capture_log();
    let config = checked(http(None), serve(moody).await.into());
    let pool = Pool::new(config, &Registry::default(), 1);
    let mut checks = [spawn(Arc::clone(&pool), None, SharedProbes::default())];
    assert!(pool.lease(None, &Excluded::new()).is_err(), "not before the first probe");
    time::timeout(Duration::from_secs(1), first_outcomes(&mut checks)).await.unwrap();
    let lease = pool.lease(None, &Excluded::new()).unwrap();

    WELL.store(false, SeqCst);
    until("down", || !pool.backends()[0].is_up()).await;
    assert!(lease.went_down());
    assert_eq!(pool.backends()[0].status().reason.as_deref(), Some("status 500"));
    time::sleep(Duration::from_millis(100)).await; // more of the same
    WELL.store(true, SeqCst);
    until("up again", || pool.backends()[0].is_up()).await;

    let changes: Vec<String> = log.with("backend ");
    let changes: Vec<&str> = changes.iter().map(String::as_str).collect();
    assert_eq!(
        changes,
        [
            "INFO backend up pool=p backend=a",
            "WARN backend down pool=p backend=a reason=\"status 500\"",
            "INFO backend up pool=p backend=a",
        ]
    );
    assert!(log.with("DEBUG health check failed").len() >= 2);

    drop(checks);
    WELL.store(false, SeqCst);
    time::sleep(Duration::from_millis(100)).await;
    assert!(pool.backends()[0].is_up(), "nobody asks any more");
}

#[tokio::test]
async fn a_first_outcome_can_be_bad() {
    let (log, _guard) = capture_log();
    let pool = Pool::new(checked(HealthCheck::Tcp, nobody().await.into()), &Registry::default(), 1);
    let mut checks = [spawn(Arc::clone(&pool), None, SharedProbes::default())];
    time::timeout(Duration::from_secs(1), first_outcomes(&mut checks)).await.unwrap();
    until("a few probes", || log.with("DEBUG").len() > 2).await;
    assert_eq!(log.with("WARN"), ["WARN backend down pool=p backend=a reason=\"connection refused\""]);
}

#[tokio::test]
async fn a_pool_without_checks_has_none() {
    let pool = Pool::new(pool(backends(&[1])), &Registry::default(), 1);
    let mut checks = [spawn(Arc::clone(&pool), None, SharedProbes::default())];
    first_outcomes(&mut checks).await;
    assert!(pool.backends()[0].is_up() && pool.backends()[0].counters().checks().last.is_none());
}

#[tokio::test]
async fn our_own_trouble_is_not_the_backends() {
    let (log, _guard) = capture_log();
    let mut config = checked(HealthCheck::Tcp, nobody().await.into());
    config.health.as_mut().unwrap().initial = Initial::Up;
    let mut checker = checker(config);
    for _ in 0..10 {
        settle(&mut checker, Err(ProbeFailure::from(io::Error::from_raw_os_error(libc::EMFILE))), Duration::ZERO);
    }
    assert!(checker.pool.backends()[0].is_up());
    let complaints = log.with("too many open files in this process");
    assert_eq!(complaints.len(), 1, "{complaints:?}");
    // Nor does it make one well that isn't.
    for _ in 0..3 {
        settle(&mut checker, Err(ProbeFailure::backend("refused")), Duration::ZERO);
    }
    assert!(!checker.pool.backends()[0].is_up());
    settle(&mut checker, Ok(()), Duration::ZERO);
    settle(&mut checker, Err(ProbeFailure::Local("x".into())), Duration::ZERO);
    settle(&mut checker, Ok(()), Duration::ZERO);
    assert!(checker.pool.backends()[0].is_up());
}

#[tokio::test]
async fn full_backend_keeps_its_state() {
    let (log, _guard) = capture_log();
    let full = || Err(ProbeFailure::Full("too many connections".into()));
    let mut checker = checker(checked(HealthCheck::Tcp, nobody().await.into()));
    settle(&mut checker, full(), Duration::ZERO);
    assert!(!checker.pool.backends()[0].is_up(), "nothing is known yet");
    settle(&mut checker, Ok(()), Duration::ZERO);
    for _ in 0..10 {
        settle(&mut checker, full(), Duration::ZERO);
    }
    assert!(checker.pool.backends()[0].is_up());
    assert!(!log.with("WARN health check not possible: the backend keeps its state").is_empty());
    // Nor does it interrupt a row of failures.
    for outcome in [Err(ProbeFailure::backend("refused")), full(), Err(ProbeFailure::backend("refused")), full()] {
        settle(&mut checker, outcome, Duration::ZERO);
    }
    assert!(checker.pool.backends()[0].is_up());
    settle(&mut checker, Err(ProbeFailure::backend("refused")), Duration::ZERO);
    assert!(!checker.pool.backends()[0].is_up());
}

#[tokio::test]
async fn the_reason_shown_is_the_latest() {
    let mut checker = checker(checked(HealthCheck::Tcp, nobody().await.into()));
    settle(&mut checker, Err(ProbeFailure::backend("refused")), Duration::ZERO);
    settle(&mut checker, Err(ProbeFailure::backend("status 500")), Duration::ZERO);
    let condition = checker.pool.backends()[0].status();
    assert_eq!(condition.reason.as_deref(), Some("status 500"));
}

#[tokio::test(start_paused = true)]
async fn probes_begin_an_interval_apart_even_when_they_take_long() {
    // Nothing answers here: each probe takes its whole timeout of 1 s out of an interval of 2 s.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = checked(ping(), listener.local_addr().unwrap().into());
    config.health = Some(health(ping()));
    let (log, _guard) = capture_log();
    let pool = Pool::new(config, &Registry::default(), 1);
    let _checks = spawn(pool, None, SharedProbes::default());
    time::sleep(Duration::from_secs(200)).await;
    let probes = log.with("timed out after 1s").len();
    assert!((90..=111).contains(&probes), "{probes} probes in 200 s");
}

/// What a scripted PostgreSQL answers to the startup message and to each query.
async fn postgres(answers: &'static [&'static [u8]]) -> SocketAddr {
    serve(move |mut stream: TcpStream| async move {
        for answer in answers {
            let _ = stream.read(&mut [0; 1024]).await?;
            stream.write_all(answer).await?;
        }
        let _ = stream.read(&mut [0; 1024]).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn role_of_a_database_is_recorded_until_it_is_not_known_any_more() {
    const PRIMARY: &[u8] = b"R\0\0\0\x08\0\0\0\0S\0\0\0\x17in_hot_standby\0off\0Z\0\0\0\x05I";
    let account = model::DatabaseAccount { user: Some("check".into()), password_file: None };
    let check = |role| {
        let (account, database) = (account.clone(), "postgres".to_owned());
        HealthCheck::Postgres(model::PostgresCheck { account, database, role, max_lag: None })
    };
    let mut up = checker(checked(check(model::RequiredRole::Primary), postgres(&[PRIMARY]).await.into()));
    assert_eq!(probe(&mut up).await, Ok(()));
    let role = |checker: &HealthChecker| checker.pool.backends()[0].database().map(|database| database.role);
    assert_eq!(role(&up), Some(Some(ServerRole::Primary)));
    // Also when it is the wrong one.
    let row: &[u8] = b"D\0\0\0\x17\0\x02\0\0\0\x01f\0\0\0\x080/300000Z\0\0\0\x05I";
    let answers = Box::leak(Box::new([PRIMARY, row]));
    let mut down = checker(checked(check(model::RequiredRole::Replica), postgres(answers).await.into()));
    let wrong = ProbeFailure::WrongRole("is a primary, role: replica is wanted".to_owned());
    assert_eq!(probe(&mut down).await, Err(wrong));
    assert_eq!(role(&down), Some(Some(ServerRole::Primary)));
    down.pool.backends()[0].set_database(None);
    up.pool.update(checked(check(model::RequiredRole::Primary), nobody().await.into()));
    let gone = &up.pool.backends()[0];
    gone.set_database(Some(DatabaseState { role: Some(ServerRole::Primary), lag: None }));
    assert_eq!(probe(&mut up).await, Err(ProbeFailure::backend("connection refused")));
    assert_eq!(gone.database(), None);
}

#[test]
fn jitter_is_a_tenth() {
    let at = |random| jittered(Duration::from_secs(10), random).as_secs_f64().round();
    assert_eq!([at(0.0), at(0.5), at(1.0)], [9.0, 10.0, 11.0]);
}
