//! Checks that pools share, and pools with several primaries, by scripted PostgreSQL servers.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};

use super::*;
use crate::config::model::{BackendConfig, OnConflict, OnDown, PostgresCheck, RequiredRole};
use crate::net::addr::Address;
use crate::pool::testing::backends;

/// A server of which each session is answered by its role at that moment.
struct ScriptedPostgres {
    address: SocketAddr,
    /// Timeline of a primary; 0 is a replica, `FAILS` closes at once, `HANGS` never answers.
    timeline: Arc<AtomicU32>,
    sessions: Arc<AtomicUsize>,
}

const REPLICA: u32 = 0;
const FAILS: u32 = u32::MAX;
const HANGS: u32 = u32::MAX - 1;

impl ScriptedPostgres {
    async fn start(timeline: u32) -> ScriptedPostgres {
        let (timeline, sessions) = (Arc::new(AtomicU32::new(timeline)), Arc::new(AtomicUsize::new(0)));
        let (role, count) = (Arc::clone(&timeline), Arc::clone(&sessions));
        let address = serve(move |stream| {
            count.fetch_add(1, Relaxed);
            session(stream, role.load(Relaxed))
        });
        ScriptedPostgres { address: address.await, timeline, sessions }
    }

    fn becomes(&self, timeline: u32) {
        self.timeline.store(timeline, Relaxed);
    }
}

async fn session(mut stream: TcpStream, timeline: u32) -> io::Result<()> {
    match timeline {
        FAILS => return Ok(()),
        HANGS => std::future::pending().await,
        _ => {}
    }
    let _ = stream.read(&mut [0; 1024]).await?;
    let standby = if timeline == REPLICA { "on" } else { "off" };
    let parameter = format!("in_hot_standby\0{standby}\0");
    let length = parameter.len() as u32 + 4;
    let mut answer = b"R\0\0\0\x08\0\0\0\0S".to_vec();
    answer.extend_from_slice(&length.to_be_bytes());
    answer.extend_from_slice(parameter.as_bytes());
    answer.extend_from_slice(b"Z\0\0\0\x05I");
    stream.write_all(&answer).await?;
    while stream.read(&mut [0; 1024]).await? > 5 {
        let name = format!("{timeline:08X}");
        let columns = [Some(if timeline == REPLICA { "t" } else { "f" }), Some("0/100"), Some(name.as_str())];
        let columns = if timeline == REPLICA { [columns[0], columns[1], None] } else { columns };
        let mut body = 3_u16.to_be_bytes().to_vec();
        for column in columns {
            body.extend_from_slice(&column.map_or(-1, |text| text.len() as i32).to_be_bytes());
            body.extend_from_slice(column.unwrap_or_default().as_bytes());
        }
        let mut row = vec![b'D'];
        row.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
        row.extend_from_slice(&body);
        row.extend_from_slice(b"Z\0\0\0\x05I");
        stream.write_all(&row).await?;
    }
    Ok(())
}

fn of_role(servers: &[&ScriptedPostgres], role: RequiredRole) -> PoolConfig {
    let account = model::DatabaseAccount { user: Some("check".into()), password_file: None };
    let check = PostgresCheck { account, database: "postgres".to_owned(), role, max_lag: None };
    let mut config = checked(HealthCheck::Postgres(check), servers[0].address.into());
    // Long enough for a busy machine: no check here is to time out.
    config.health.iter_mut().for_each(|health| health.timeout = Duration::from_secs(10));
    let weights = vec![1; servers.len()];
    config.backends = backends(&weights);
    let place = |(backend, server): (&mut BackendConfig, &&ScriptedPostgres)| backend.address = server.address.into();
    config.backends.iter_mut().zip(servers).for_each(place);
    config
}

/// The checkers of a pool, driven by hand.
struct Checkers {
    pool: Arc<Pool>,
    checkers: Vec<HealthChecker>,
}

impl Checkers {
    fn new(config: PoolConfig, shared: &SharedProbes) -> Checkers {
        Checkers::of(Pool::new(config, &Registry::default(), 1), shared)
    }

    fn of(pool: Arc<Pool>, shared: &SharedProbes) -> Checkers {
        let health = pool.settings().health.clone().unwrap();
        let (_, readings) = watch::channel(PasswordReading::default());
        let context = Arc::new(CheckContext::new(None, DatabaseShared::new(readings), shared.clone()));
        let checker = |backend: &Arc<Backend>| HealthChecker {
            pool: Arc::clone(&pool),
            context: Arc::clone(&context),
            id: backend.id(),
            rise_fall: RiseFall::new(&health),
            probe: None,
            waiting: None,
        };
        let checkers = pool.backends().iter().map(checker).collect();
        Checkers { pool, checkers }
    }

    /// One check of one backend, with all that follows from it. `since`: how old a shared one may be.
    async fn check(&mut self, place: usize, since: Instant) {
        let (settings, backend) = (self.pool.settings(), Arc::clone(&self.pool.backends()[place]));
        let checker = self.checkers.iter_mut().find(|checker| checker.id == backend.id()).unwrap();
        let outcome = checker.outcome(&settings, settings.health.as_ref().unwrap(), &backend, since).await;
        let is_down = checker.rise_fall.is_down();
        let judgement = checker.context.roles.judge(&self.pool, &settings, &backend, &outcome, is_down);
        checker.settle(&backend, &judgement, Duration::ZERO);
        checker.context.roles.conclude(&self.pool, &judgement);
    }

    async fn check_now(&mut self, place: usize) {
        self.check(place, Instant::now()).await;
    }

    /// The backend that a client gets.
    fn chosen(&self) -> Option<usize> {
        let lease = self.pool.lease(None, &Excluded::new()).ok()?;
        self.pool.backends().iter().position(|backend| backend.id() == lease.backend().id())
    }

    fn reason(&self, place: usize) -> String {
        self.pool.backends()[place].status().reason.map(|reason| reason.to_string()).unwrap_or_default()
    }
}

#[tokio::test]
async fn pools_with_the_same_server_share_its_checks() {
    let (server, shared, start) = (ScriptedPostgres::start(3).await, SharedProbes::default(), Instant::now());
    let sessions = || server.sessions.load(Relaxed);
    let mut write = Checkers::new(of_role(&[&server], RequiredRole::Primary), &shared);
    let mut read = Checkers::new(of_role(&[&server], RequiredRole::PreferReplica), &shared);
    write.check(0, start).await;
    assert_eq!(sessions(), 1);
    // Asks for more than the other one did.
    read.check(0, start).await;
    assert_eq!((sessions(), write.chosen(), read.chosen()), (2, Some(0), Some(0)));
    tokio::join!(read.check(0, start), write.check(0, start));
    assert_eq!(sessions(), 2, "both take what was found");
    let now = Instant::now();
    tokio::join!(write.check(0, now), read.check(0, now));
    assert_eq!(sessions(), 3, "one runs it, the other waits for it");
    // Another account is another check.
    let mut config = of_role(&[&server], RequiredRole::Primary);
    let check = config.health.as_mut().map(|health| &mut health.check);
    let Some(HealthCheck::Postgres(check)) = check else { panic!("{check:?}") };
    check.account.user = Some("other".into());
    Checkers::new(config, &shared).check(0, start).await;
    assert_eq!(sessions(), 4);
}

#[tokio::test]
async fn a_check_that_is_given_up_is_run_by_the_next_one() {
    let (server, shared) = (ScriptedPostgres::start(HANGS).await, SharedProbes::default());
    let mut first = Checkers::new(of_role(&[&server], RequiredRole::Primary), &shared);
    let mut second = Checkers::new(of_role(&[&server], RequiredRole::Primary), &shared);
    let start = Instant::now();
    tokio::select! {
        () = first.check(0, start) => panic!("the server does not answer"),
        () = until("the check runs", || server.sessions.load(Relaxed) == 1) => {}
    }
    server.becomes(3);
    second.check(0, start).await;
    assert_eq!(second.chosen(), Some(0));
}

#[tokio::test]
async fn of_two_primaries_none_is_used_until_one_is_demoted() {
    let (log, _guard) = capture_log();
    let (old, new) = (ScriptedPostgres::start(1).await, ScriptedPostgres::start(REPLICA).await);
    let mut pool = Checkers::new(of_role(&[&old, &new], RequiredRole::Primary), &SharedProbes::default());
    pool.check_now(0).await;
    pool.check_now(1).await;
    assert_eq!(pool.chosen(), Some(0));
    new.becomes(2);
    pool.check_now(1).await;
    assert_eq!(pool.chosen(), None, "the first one may have been demoted since");
    assert!(!pool.pool.has_primary_conflict());
    pool.check_now(0).await;
    assert_eq!(pool.chosen(), None);
    assert!(pool.pool.has_primary_conflict());
    assert!(pool.reason(0).contains("more than one primary"), "{}", pool.reason(0));
    pool.check_now(0).await;
    pool.check_now(1).await;
    assert_eq!(log.with("none of them gets new connections").len(), 1);
    old.becomes(REPLICA);
    pool.check_now(0).await;
    assert_eq!(pool.chosen(), Some(1));
    assert!(!pool.pool.has_primary_conflict());
    assert_eq!(log.with("more than one primary: no more").len(), 1);
}

#[tokio::test]
async fn a_failover_is_no_conflict() {
    for end in [REPLICA, FAILS] {
        let (log, _guard) = capture_log();
        let (old, new) = (ScriptedPostgres::start(1).await, ScriptedPostgres::start(REPLICA).await);
        let mut pool = Checkers::new(of_role(&[&old, &new], RequiredRole::Primary), &SharedProbes::default());
        pool.check_now(0).await;
        pool.check_now(1).await;
        old.becomes(end);
        new.becomes(2);
        pool.check_now(1).await;
        pool.check_now(0).await;
        // One that fails is in rotation until `fall`, but not beside another primary.
        assert_eq!(pool.chosen(), Some(1));
        assert!(log.with("more than one primary").is_empty());
    }
}

#[tokio::test]
async fn newest_is_used_and_sessions_of_the_other_are_cut() {
    let (old, new) = (ScriptedPostgres::start(1).await, ScriptedPostgres::start(REPLICA).await);
    let mut config = of_role(&[&old, &new], RequiredRole::Primary);
    (config.on_conflict, config.on_down) = (OnConflict::Newest, OnDown::Cut);
    let mut pool = Checkers::new(config.clone(), &SharedProbes::default());
    let cut = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&cut);
    pool.pool.on_cut(Box::new(move |_| {
        counter.fetch_add(1, Relaxed);
    }));
    pool.check_now(0).await;
    pool.check_now(1).await;
    new.becomes(2);
    pool.check_now(1).await;
    assert_eq!((pool.chosen(), cut.load(Relaxed)), (Some(1), 0), "not cut on a statement that may be old");
    pool.check_now(0).await;
    assert_eq!((pool.chosen(), cut.load(Relaxed)), (Some(1), 1));
    assert_eq!(
        pool.reason(0),
        format!("is no primary any more: {} (timeline 2) was promoted later", config.backends[1].name)
    );
    // The same timeline says nothing.
    old.becomes(2);
    pool.check_now(0).await;
    assert_eq!(pool.chosen(), None);
}

#[tokio::test]
async fn a_conflict_cuts_no_sessions_but_the_demotion_after_it_does() {
    let (one, other) = (ScriptedPostgres::start(1).await, ScriptedPostgres::start(1).await);
    let mut config = of_role(&[&one, &other], RequiredRole::Primary);
    config.on_down = OnDown::Cut;
    let mut pool = Checkers::new(config, &SharedProbes::default());
    let cut = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&cut);
    pool.pool.on_cut(Box::new(move |_| {
        counter.fetch_add(1, Relaxed);
    }));
    for place in [0, 1, 0] {
        pool.check_now(place).await;
    }
    assert_eq!((pool.chosen(), cut.load(Relaxed)), (None, 0));
    one.becomes(REPLICA);
    pool.check_now(0).await;
    assert_eq!((pool.chosen(), cut.load(Relaxed)), (Some(1), 1));
}

#[tokio::test]
async fn one_failed_check_does_not_let_both_primaries_serve() {
    let servers = [ScriptedPostgres::start(1).await, ScriptedPostgres::start(1).await];
    let config = of_role(&[&servers[0], &servers[1]], RequiredRole::Primary);
    let mut pool = Checkers::new(config.clone(), &SharedProbes::default());
    for place in [0, 1, 0] {
        pool.check_now(place).await;
    }
    servers[1].becomes(FAILS);
    for failure in 1..=3 {
        pool.check_now(1).await;
        assert_eq!(pool.chosen(), None, "after {failure} failures");
    }
    // It is down: `fall` failures.
    pool.check_now(1).await;
    assert_eq!(pool.chosen(), Some(0));
    servers[1].becomes(1);
    pool.check_now(1).await;
    assert_eq!(pool.chosen(), None);
    // Removed, it is no primary any more.
    let mut without = config;
    without.backends.truncate(1);
    pool.pool.update(without);
    pool.checkers[0].context.roles.forget_gone(&pool.pool);
    assert_eq!(pool.chosen(), Some(0));
}

#[tokio::test]
async fn addresses_of_localhost_are_one_server() {
    let (local, other) = (ScriptedPostgres::start(1).await, ScriptedPostgres::start(REPLICA).await);
    let mut config = of_role(&[&local, &other], RequiredRole::Primary);
    config.backends[0].address = BackendAddress::Name { host: "localhost".into(), port: local.address.port() };
    let entry = Arc::clone(&config.backends[0].name);
    // As if the server listened at two addresses, of which both lead to it.
    let pool = Pool::new(config, &Registry::default(), 1);
    let second = SocketAddr::from(([127, 0, 0, 2], local.address.port()));
    pool.resolve(&entry, Ok(vec![Address::Tcp(local.address), Address::Tcp(second)]));
    let mut pool = Checkers::of(pool, &SharedProbes::default());
    let [first, second, third] = [0, 1, 2].map(|place| pool.pool.backends()[place].id());
    let server = |pool: &Checkers, place: usize| {
        pool.checkers[place].context.roles.judge(
            &pool.pool,
            &pool.pool.settings(),
            &pool.pool.backend([first, second, third][place]).unwrap(),
            &says_primary(),
            false,
        )
    };
    for place in [0, 1, 0, 1] {
        let judgement = server(&pool, place);
        assert_eq!(judgement.verdict, Ok(()));
        let backend = pool.pool.backend([first, second, third][place]).unwrap();
        pool.checkers[place].settle(&backend, &judgement, Duration::ZERO);
        pool.checkers[place].context.roles.conclude(&pool.pool, &judgement);
    }
    assert!(pool.chosen().is_some() && !pool.pool.has_primary_conflict());
    // Another server: the conflict holds both addresses.
    for place in [2, 0, 1] {
        let judgement = server(&pool, place);
        let backend = pool.pool.backend([first, second, third][place]).unwrap();
        pool.checkers[place].settle(&backend, &judgement, Duration::ZERO);
        pool.checkers[place].context.roles.conclude(&pool.pool, &judgement);
    }
    assert!(pool.pool.has_primary_conflict());
    assert_eq!(pool.chosen(), None);
}

/// A check that has just found a primary.
fn says_primary() -> ProbeOutcome {
    let now = Instant::now();
    let seen = Observation { role: Some(ServerRole::Primary), ..Observation::default() };
    ProbeOutcome { began: now, ended: now, result: Ok(seen) }
}

#[tokio::test]
async fn an_administrator_decides_a_conflict() {
    let servers = [ScriptedPostgres::start(1).await, ScriptedPostgres::start(1).await];
    let config = of_role(&[&servers[0], &servers[1]], RequiredRole::Primary);
    let mut pool = Checkers::new(config.clone(), &SharedProbes::default());
    for place in [0, 1, 0] {
        pool.check_now(place).await;
    }
    assert_eq!(pool.chosen(), None);
    let mut forced = config.clone();
    forced.backends[1].forced = Some(model::ForcedHealth::Up);
    pool.pool.update(forced.clone());
    assert_eq!(pool.chosen(), Some(1));
    // One that is forced down states nothing.
    (forced.backends[0].forced, forced.backends[1].forced) = (Some(model::ForcedHealth::Down), None);
    pool.pool.update(forced);
    assert_eq!(pool.chosen(), None);
    pool.check_now(0).await;
    assert_eq!(pool.chosen(), Some(1));
    pool.pool.update(config.clone());
    for place in [0, 1, 0] {
        pool.check_now(place).await;
    }
    assert_eq!(pool.chosen(), None);
    // One in maintenance is not checked: the other is alone.
    let mut without = config;
    without.backends[0].state = AdminState::Maintenance;
    pool.pool.update(without);
    let gone = Arc::clone(&pool.pool.backends()[0]);
    pool.checkers[0].context.roles.forget(&pool.pool, &pool.pool.settings(), &gone);
    assert_eq!(pool.chosen(), Some(1));
    assert!(!pool.pool.has_primary_conflict());
}

#[tokio::test]
async fn a_replica_pool_falls_back_to_the_primary() {
    let (primary, replica) = (ScriptedPostgres::start(1).await, ScriptedPostgres::start(REPLICA).await);
    let mut pool = Checkers::new(of_role(&[&primary, &replica], RequiredRole::PreferReplica), &SharedProbes::default());
    pool.check_now(0).await;
    assert_eq!(pool.chosen(), Some(0), "no replica is known yet");
    pool.check_now(1).await;
    assert!((0..4).all(|_| pool.chosen() == Some(1)));
    replica.becomes(FAILS);
    for _ in 0..3 {
        pool.check_now(1).await;
    }
    assert_eq!(pool.chosen(), Some(0));
    // Roles change places.
    replica.becomes(2);
    primary.becomes(REPLICA);
    for place in [1, 1, 0] {
        pool.check_now(place).await;
    }
    assert!((0..4).all(|_| pool.chosen() == Some(0)));
}

#[tokio::test]
async fn a_suspected_conflict_is_checked_again_at_once() {
    let (old, new) = (ScriptedPostgres::start(1).await, ScriptedPostgres::start(REPLICA).await);
    let mut config = of_role(&[&old, &new], RequiredRole::Primary);
    let health = config.health.as_mut().unwrap();
    // Never due again within this test.
    (health.interval, health.timeout) = (Duration::from_secs(3600), Duration::from_secs(5));
    let mut pool = Checkers::new(config, &SharedProbes::default());
    let _task = tokio::spawn(pool.checkers.remove(0).run());
    until("the old primary is used", || pool.chosen() == Some(0)).await;
    pool.check_now(1).await;
    old.becomes(REPLICA);
    new.becomes(2);
    pool.check_now(1).await;
    until("the new primary is used", || pool.chosen() == Some(1)).await;
}
