//! When each name is looked up. Pure: the time comes in, the names to look up go out.
//!
//! A lookup occupies its place until the system's resolver returns, which takes tens of seconds when a name server is silent, and
//! nothing can cut it short. Three limits keep places for the others: one for all lookups, one for each zone, and a small one
//! for names that were slow.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Lookups under way at once. Each holds a thread.
pub(super) const MAX_LOOKUPS: usize = 80;

/// Lookups of one zone under way at once: its name servers may fall silent at any time.
const MAX_OF_A_ZONE: usize = 64;

/// Lookups under way at once of names that were slow the last time.
const MAX_SLOW: usize = 16;

/// A lookup that takes this long is slow.
const SLOW: Duration = Duration::from_secs(1);

/// A lookup that takes this long counts as failed, although its answer is still welcome.
pub(super) const LATE: Duration = Duration::from_secs(5);

/// From an answer to the next lookup.
pub(super) const REFRESH: Duration = Duration::from_secs(30);

/// From the first failure to the next lookup; doubled for each further failure in a row.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// Longest time from a failure to the next lookup.
const MAX_RETRY: Duration = Duration::from_secs(30);

/// The clocks of all names.
pub(super) struct Schedule {
    names: Vec<ScheduledName>,
    zones: Vec<Zone>,
}

struct ScheduledName {
    zone: usize,
    state: LookupState,
    /// Failures in a row.
    failures: u32,
    /// Whether its last lookup was slow; `None` before the first has ended.
    was_slow: Option<bool>,
}

enum LookupState {
    Waiting { due: Instant },
    Running { since: Instant, is_slow: bool, is_late: bool },
}

/// What names under the same parent domain have in common: usually their name servers.
#[derive(Default)]
struct Zone {
    running: usize,
    /// Whether its latest lookup was slow.
    was_slow: bool,
}

impl Schedule {
    /// All names are due at once.
    pub(super) fn new<'n>(hosts: impl Iterator<Item = &'n str>, now: Instant) -> Schedule {
        let mut schedule = Schedule { names: Vec::new(), zones: Vec::new() };
        let mut numbers = HashMap::new();
        for host in hosts {
            let zone = *numbers.entry(zone(host)).or_insert(schedule.zones.len());
            if zone == schedule.zones.len() {
                schedule.zones.push(Zone::default());
            }
            schedule.names.push(ScheduledName {
                zone,
                state: LookupState::Waiting { due: now },
                failures: 0,
                was_slow: None,
            });
        }
        schedule
    }

    /// The names whose lookups start now.
    pub(super) fn start(&mut self, now: Instant) -> Vec<usize> {
        let (mut running, mut slow) = (0, 0);
        for name in &mut self.names {
            if let LookupState::Running { since, is_slow, .. } = &mut name.state {
                if !*is_slow && now.saturating_duration_since(*since) >= SLOW {
                    *is_slow = true;
                    self.zones[name.zone].was_slow = true;
                }
                running += 1;
                slow += usize::from(*is_slow);
            }
        }
        let mut started = Vec::new();
        while running < MAX_LOOKUPS
            && let Some((number, is_slow)) = self.next(now, slow < MAX_SLOW)
        {
            let name = &mut self.names[number];
            name.state = LookupState::Running { since: now, is_slow, is_late: false };
            self.zones[name.zone].running += 1;
            running += 1;
            slow += usize::from(is_slow);
            started.push(number);
        }
        started
    }

    /// Of the names that are due, the one whose zone has the fewest lookups under way; and whether it is a slow one.
    fn next(&self, now: Instant, with_slow: bool) -> Option<(usize, bool)> {
        let candidates = self.names.iter().enumerate().filter_map(|(number, name)| {
            let LookupState::Waiting { due } = name.state else { return None };
            let zone = &self.zones[name.zone];
            let is_slow = name.was_slow.unwrap_or(zone.was_slow);
            let may_start = due <= now && zone.running < MAX_OF_A_ZONE && (with_slow || !is_slow);
            may_start.then_some((zone.running, due, number, is_slow))
        });
        candidates.min().map(|(.., number, is_slow)| (number, is_slow))
    }

    /// Takes the end of a lookup into account.
    pub(super) fn finish(&mut self, number: usize, has_addresses: bool, now: Instant) {
        let name = &mut self.names[number];
        let LookupState::Running { since, .. } = name.state else { return };
        let was_slow = now.saturating_duration_since(since) >= SLOW;
        let zone = &mut self.zones[name.zone];
        zone.running -= 1;
        zone.was_slow = was_slow;
        name.was_slow = Some(was_slow);
        name.failures = if has_addresses { 0 } else { name.failures + 1 };
        let pause = match name.failures {
            0 => REFRESH,
            failures => FIRST_RETRY.saturating_mul(1 << (failures - 1).min(16)).min(MAX_RETRY),
        };
        name.state = LookupState::Waiting { due: now + pause };
    }

    /// The names whose lookups have just become late, each once for a lookup.
    pub(super) fn late(&mut self, now: Instant) -> Vec<usize> {
        let mut late = Vec::new();
        for (number, name) in self.names.iter_mut().enumerate() {
            if let LookupState::Running { since, is_late, .. } = &mut name.state
                && !*is_late
                && now.saturating_duration_since(*since) >= LATE
            {
                *is_late = true;
                late.push(number);
            }
        }
        late
    }

    /// When to ask again, if no lookup ends before.
    pub(super) fn next_event(&self, now: Instant) -> Option<Instant> {
        let events = self.names.iter().filter_map(|name| match name.state {
            // One that is overdue waits for a place, which the end of a lookup makes.
            LookupState::Waiting { due } => Some(due).filter(|due| *due > now),
            LookupState::Running { since, is_late, .. } => Some(since + LATE).filter(|_| !is_late),
        });
        events.min()
    }
}

/// The parent domain, unless that is a top-level domain. Names without a dot share one zone: the search list or the hosts file.
fn zone(host: &str) -> &str {
    let host = host.strip_suffix('.').unwrap_or(host);
    match host.split_once('.') {
        None => "",
        Some((_, parent)) if parent.contains('.') => parent,
        Some(_) => host,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Runs a schedule for a while: `takes` says how long the lookup of a name takes, and whether it succeeds. When each lookup of
    /// each name began, and how many ran at most.
    fn simulate(
        hosts: &[String],
        length: Duration,
        takes: impl Fn(&str) -> (Duration, bool),
    ) -> (Vec<Vec<u64>>, usize) {
        let start = Instant::now();
        let mut schedule = Schedule::new(hosts.iter().map(String::as_str), start);
        let mut running: BTreeMap<(Instant, usize), bool> = BTreeMap::new();
        let mut begun = vec![Vec::new(); hosts.len()];
        let (mut now, mut most) = (start, 0);
        while now - start <= length {
            for name in schedule.start(now) {
                let (takes, succeeds) = takes(&hosts[name]);
                running.insert((now + takes, name), succeeds);
                begun[name].push((now - start).as_millis() as u64);
            }
            most = most.max(running.len());
            let end = running.keys().next().map(|(end, _)| *end);
            let Some(next) = end.into_iter().chain(schedule.next_event(now)).min() else { break };
            assert!(next > now || end == Some(next), "it turns without end");
            now = next;
            schedule.late(now);
            while let Some(first) = running.first_entry().filter(|first| first.key().0 <= now) {
                let ((_, name), succeeded) = first.remove_entry();
                schedule.finish(name, succeeded, now);
            }
        }
        (begun, most)
    }

    fn names(count: usize, zone: &str) -> Vec<String> {
        (0..count).map(|number| format!("n{number}.{zone}")).collect()
    }

    #[test]
    fn a_failed_name_is_asked_again_after_a_time_that_doubles_up_to_30_seconds() {
        let (begun, _) = simulate(&names(1, "a.example"), ms(130_000), |_| (ms(0), false));
        assert_eq!(begun[0], [0, 1_000, 3_000, 7_000, 15_000, 31_000, 61_000, 91_000, 121_000]);
        let (begun, _) = simulate(&names(1, "a.example"), ms(70_000), |_| (ms(0), true));
        assert_eq!(begun[0], [0, 30_000, 60_000]);
    }

    #[test]
    fn a_success_starts_the_doubling_again() {
        let now = Instant::now();
        let mut schedule = Schedule::new(["a"].into_iter(), now);
        let mut at = now;
        let mut pauses = Vec::new();
        for succeeds in [false, false, false, true, false, false] {
            assert_eq!(schedule.start(at), [0]);
            schedule.finish(0, succeeds, at);
            let next = schedule.next_event(at).unwrap();
            pauses.push((next - at).as_secs());
            at = next;
        }
        assert_eq!(pauses, [1, 2, 4, 30, 1, 2]);
    }

    #[test]
    fn many_names_at_half_a_second_all_get_their_turn() {
        let (begun, most) = simulate(&names(450, "a.example"), ms(20_000), |_| (ms(500), true));
        let last = begun.iter().map(|begun| begun[0]).max().unwrap();
        assert!(last <= 4_500, "the last one begins after {last} ms");
        assert!(most <= MAX_OF_A_ZONE);
    }

    #[test]
    fn a_silent_zone_does_not_hold_up_the_others() {
        for silent in [40, 400] {
            let mut hosts = names(silent, "silent.example");
            hosts.push("good.a.example".into());
            hosts.push("failing.b.example".into());
            let (begun, _) = simulate(&hosts, ms(600_000), |host| match host {
                host if host.ends_with("silent.example") => (ms(20_000), false),
                host => (ms(5), host.starts_with("good")),
            });
            let [.., good, failing] = begun.as_slice() else { panic!("two more") };
            assert_eq!(good[..3], [0, 30_005, 60_010], "{silent}");
            assert_eq!(failing[..5], [0, 1_005, 3_010, 7_015, 15_020], "{silent}");
            assert!(begun.iter().all(|begun| !begun.is_empty()), "{silent}: those are asked too");
        }
    }

    #[test]
    fn a_zone_that_falls_silent_leaves_places() {
        let mut hosts = names(200, "a.example");
        hosts.push("other.b.example".into());
        let asked = std::cell::RefCell::new(BTreeMap::new());
        let (begun, most) = simulate(&hosts, ms(200_000), |host| {
            let mut asked = asked.borrow_mut();
            let times = asked.entry(host.to_owned()).or_insert(0);
            *times += 1;
            let falls_silent = host.ends_with("a.example") && *times > 1;
            if falls_silent { (ms(20_000), false) } else { (ms(5), true) }
        });
        assert_eq!(begun[200][..4], [0, 30_005, 60_010, 90_015]);
        assert!(most <= MAX_OF_A_ZONE + 1, "{most}");
    }

    #[test]
    fn a_late_lookup_is_told_once() {
        let now = Instant::now();
        let mut schedule = Schedule::new(["a"].into_iter(), now);
        schedule.start(now);
        assert_eq!(schedule.next_event(now), Some(now + LATE));
        assert!(schedule.late(now + LATE - ms(1)).is_empty());
        assert_eq!(schedule.late(now + LATE), [0]);
        assert!(schedule.late(now + LATE * 2).is_empty());
        assert_eq!(schedule.next_event(now + LATE * 2), None, "only its end");
        assert!(schedule.start(now + LATE * 9).is_empty(), "not twice at once");
    }

    #[test]
    fn zones() {
        for (host, expected) in [
            ("db.eu.example.com", "eu.example.com"),
            ("db.example.com", "example.com"),
            ("db.example.com.", "example.com"),
            ("example.com", "example.com"),
            ("localhost", ""),
            ("db", ""),
        ] {
            assert_eq!(zone(host), expected, "{host}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever lookups take: the limits hold, nothing runs twice at once, and every name is asked.
        #[test]
        fn limits_hold(zones in prop::collection::vec((1..60_usize, 0..30_000_u64, any::<bool>()), 1..6)) {
            let hosts: Vec<String> = zones.iter().enumerate()
                .flat_map(|(zone, (count, ..))| names(*count, &format!("z{zone}.example"))).collect();
            let (begun, most) = simulate(&hosts, Duration::from_secs(500), |host| {
                let zone = host.split_once(".z").and_then(|(_, rest)| rest.split_once('.')).unwrap().0;
                let (_, takes, succeeds) = zones[zone.parse::<usize>().unwrap()];
                (ms(takes), succeeds)
            });
            prop_assert!(most <= MAX_LOOKUPS);
            prop_assert!(begun.iter().all(|begun| !begun.is_empty()));
        }
    }
}
