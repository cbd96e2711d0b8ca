//! Administrative states, health by decree, and backends that stand in for those that were never checked.

use super::*;
use crate::config::model::{AdminState, ForcedHealth};

fn set(config: &model::PoolConfig, place: usize, state: AdminState) -> model::PoolConfig {
    let mut config = config.clone();
    config.backends[place].state = state;
    config
}

#[test]
fn drained_backend_keeps_its_connections_and_its_health() {
    for state in [AdminState::Drain, AdminState::Maintenance] {
        let config = pool(backends(&[1, 1]));
        let pool = build(&config);
        let held: Vec<Lease> = (0..2).map(|_| lease(&pool).unwrap()).collect();
        pool.update(set(&config, 0, state));
        assert_eq!(order(&pool, 4), "bbbb", "{state:?}");
        assert_eq!(pool.backends()[0].connections(), 1, "{state:?}");
        assert!(pool.is_usable());
        pool.update(set(&set(&config, 0, state), 1, state));
        assert_eq!(lease(&pool).unwrap_err(), NoBackend::NotReady);
        assert!(!pool.is_usable());
        pool.update(config);
        assert_eq!(pool.backends()[0].connections() + pool.backends()[1].connections(), 2);
        assert!(lease(&pool).is_ok());
        drop(held);
    }
}

#[test]
fn after_maintenance_the_next_check_decides() {
    let config = model::PoolConfig { health: Some(health(HealthCheck::Tcp)), ..pool(backends(&[1, 1])) };
    let pool = build(&config);
    for backend in pool.backends().iter() {
        pool.set_up(backend.id());
    }
    pool.update(set(&config, 0, AdminState::Drain));
    pool.update(config.clone());
    assert!(pool.backends()[0].is_up(), "checks went on while it was drained");
    pool.update(set(&config, 0, AdminState::Maintenance));
    pool.update(config);
    assert!(!pool.backends()[0].is_up(), "what was known before is stale");
    assert_eq!(order(&pool, 2), "bb");
    pool.set_up(id(&pool, 0));
    assert!(pool.backends()[0].is_up());
}

#[test]
fn forced_health_overrides_checks_until_it_is_taken_back() {
    let health = Some(model::Health { initial: Initial::Up, ..health(HealthCheck::Tcp) });
    let config = model::PoolConfig { on_down: OnDown::Cut, health, ..pool(backends(&[1, 1])) };
    let pool = build(&config);
    let cut = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&cut);
    pool.on_cut(Box::new(move |backend| seen.lock().unwrap().push(backend)));
    let forced = |forced| {
        let mut config = config.clone();
        config.backends[0].forced = forced;
        config
    };
    pool.update(forced(Some(ForcedHealth::Down)));
    assert_eq!(order(&pool, 2), "bb");
    assert_eq!(pool.backends()[0].status().reason.as_deref(), Some("forced down by an administrator"));
    assert_eq!(*cut.lock().unwrap(), [id(&pool, 0)], "its connections are cut as by a check");
    pool.set_up(id(&pool, 0));
    assert!(!pool.backends()[0].is_up());
    pool.update(forced(Some(ForcedHealth::Up)));
    pool.set_down(id(&pool, 0), "refused");
    assert!(pool.backends()[0].is_up());
    pool.update(forced(None));
    assert!(!pool.backends()[0].is_up(), "what the check has said meanwhile");
    assert_eq!(cut.lock().unwrap().len(), 2);
}

#[test]
fn removed_backends_stand_in_until_new_ones_have_a_verdict() {
    let checked = |names: &[u32]| model::PoolConfig { health: Some(health(HealthCheck::Tcp)), ..pool(backends(names)) };
    let old = checked(&[1]);
    let new = {
        let mut config = checked(&[1, 1]);
        config.backends.remove(0);
        config
    };
    for (verdict, chosen) in [(true, Ok(())), (false, Err(NoBackend::AllDown { backends: 1 }))] {
        let pool = build(&old);
        pool.set_up(id(&pool, 0));
        pool.update(new.clone());
        assert_eq!(order(&pool, 2), "aa", "`b` was never checked");
        let b = pool.backends().iter().find(|it| **it.name() == *"b").map(|it| it.id()).unwrap();
        match verdict {
            true => pool.set_up(b),
            false => pool.set_down(b, "refused"),
        };
        assert_eq!(lease(&pool).map(|lease| assert_eq!(&**lease.backend().name(), "b")), chosen);
        assert_eq!(pool.backends().len(), 1, "`a` had no connections");
    }
}
