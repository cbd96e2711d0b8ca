//! What a keyword says is in the result, or reported: taken away, it changes one of them.

mod of_haproxy;
mod of_nginx;

use proptest::prelude::*;
use proptest::sample::subsequence;

use self::of_haproxy::haproxy_by_hand;
pub(super) use self::of_haproxy::{haproxy_file, haproxy_parts};
use self::of_nginx::nginx_by_hand;
pub(super) use self::of_nginx::{nginx_file, nginx_parts};
use super::*;

/// A part of a file: where it stands, and its words.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct CfgPart {
    pub(super) place: &'static str,
    pub(super) words: String,
}

/// Parts that mean the same, of which a file has one.
const SAME: [&[&str]; 3] = [
    &["no-tlsv12", "force-tlsv13", "ssl-min-ver"],
    &["send-proxy", "send-proxy-v2", "send-proxy-v2-ssl"],
    &["least_conn", "ip_hash", "hash", "random", "least_time"],
];

impl CfgPart {
    pub(super) fn new(place: &'static str, words: impl Into<String>) -> CfgPart {
        CfgPart { place, words: words.into() }
    }

    /// What a file has once: the place and the keyword, `timeout` and `option` with their second word. A default for servers
    /// is that of a server.
    fn key(&self) -> (&'static str, String) {
        let mut words = self.words.split([' ', '=']);
        let first = words.next().unwrap_or_default();
        let first = SAME.iter().find(|same| same.contains(&first)).map_or(first, |same| same[0]);
        let more = ["timeout", "option", "no", "http-check", "stats", "stick"].contains(&first);
        let second = if more { words.next().unwrap_or_default() } else { "" };
        (if self.place == "default-server" { "server" } else { self.place }, format!("{first} {second}"))
    }
}

/// The settings of a result without its comments, and the reasons in its report.
fn outcome(text: &str, dialect: Dialect) -> (String, Vec<String>) {
    let Converted { yaml, ledger } =
        translate(text, "/nonexistent/x", dialect).unwrap_or_else(|error| panic!("{error}:\n{text}"));
    let settings = yaml.lines().filter(|line| !line.trim_start().starts_with('#') && !line.is_empty());
    let mut reasons = Vec::new();
    for outcome in [Outcome::Diverted, Outcome::Left, Outcome::NotNeeded] {
        reasons.extend(ledger.remarks(outcome).iter().map(|remark| format!("{outcome:?}: {}", remark.why)));
    }
    reasons.sort();
    (settings.collect::<Vec<_>>().join("\n"), reasons)
}

/// Takes one part after the other away.
fn each_part_counts(parts: &[CfgPart], file: fn(&[CfgPart]) -> String, dialect: Dialect) -> Result<(), String> {
    let whole = outcome(&file(parts), dialect);
    for index in 0..parts.len() {
        let mut others = parts.to_vec();
        let part = others.remove(index);
        if outcome(&file(&others), dialect) == whole {
            return Err(format!("{part:?} is lost:\n{}\n{}\n{:#?}", file(parts), whole.0, whole.1));
        }
    }
    Ok(())
}

fn at(parts: &[CfgPart], place: &str, indent: &str, end: &str) -> String {
    let mut words = parts.iter().filter(|part| part.place == place).map(|part| part.words.as_str());
    match end {
        // Options of one line.
        "" => words.map(|words| format!(" {words}")).collect(),
        _ => words.try_fold(String::new(), |text, words| Some(text + indent + words + end)).unwrap_or_default(),
    }
}

/// Without what leaves a backend out: it is reported as a whole then, and not each part of it.
pub(super) fn with_all_pools(mut parts: Vec<CfgPart>) -> Vec<CfgPart> {
    parts.retain(|part| part.words != "use_backend q");
    parts
}

/// Whether a file can have both: each keyword once in its place, and none that says what the other one says already.
fn go_together(one: &CfgPart, other: &CfgPart) -> bool {
    one.key() != other.key() && !one.words.contains(&other.words) && !other.words.contains(&one.words)
}

/// Two parts of a place at a time: one must not take the other's place in silence.
fn pairs_count(parts: &[CfgPart], places: &[&str], file: fn(&[CfgPart]) -> String, dialect: Dialect) {
    let (mut count, mut lost) = (0, Vec::new());
    for place in places {
        let here: Vec<&CfgPart> = parts.iter().filter(|part| part.place == *place).collect();
        for (index, one) in here.iter().enumerate() {
            for other in here[index + 1..].iter().filter(|other| go_together(one, other)) {
                count += 1;
                lost.extend(each_part_counts(&[(*one).clone(), (*other).clone()], file, dialect).err());
            }
        }
    }
    assert!(count > 1000, "{count}");
    assert!(lost.is_empty(), "{} of {count}, such as {}", lost.len(), lost[0]);
}

#[test]
fn each_pair_of_haproxy_counts() {
    let parts = with_all_pools(haproxy_by_hand());
    pairs_count(&parts, &["global", "listen", "bind", "server"], haproxy_file, Dialect::Haproxy);
}

#[test]
fn each_pair_of_nginx_counts() {
    pairs_count(&nginx_by_hand(), &["server", "location", "listen", "upstream server"], nginx_file, Dialect::Nginx);
}

/// Some of the parts that go together.
pub(super) fn some(parts: Vec<CfgPart>) -> impl Strategy<Value = Vec<CfgPart>> {
    subsequence(parts, 2..12).prop_map(|parts| {
        let mut chosen: Vec<CfgPart> = Vec::new();
        for part in parts {
            if chosen.iter().all(|other| go_together(other, &part)) {
                chosen.push(part);
            }
        }
        chosen
    })
}

/// Each part alone.
fn all_count(parts: Vec<CfgPart>, file: fn(&[CfgPart]) -> String, dialect: Dialect) {
    assert!(parts.len() > 300, "{}", parts.len());
    let lost: Vec<CfgPart> =
        parts.into_iter().filter(|part| each_part_counts(std::slice::from_ref(part), file, dialect).is_err()).collect();
    assert!(lost.is_empty(), "lost: {lost:#?}");
}

#[test]
fn each_keyword_of_haproxy_counts() {
    all_count(haproxy_parts(), haproxy_file, Dialect::Haproxy);
}

#[test]
fn each_keyword_of_nginx_counts() {
    all_count(nginx_parts(), nginx_file, Dialect::Nginx);
}

proptest! {
    #[test]
    fn no_part_of_haproxy_is_lost(parts in some(with_all_pools(haproxy_parts()))) {
        each_part_counts(&parts, haproxy_file, Dialect::Haproxy).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn no_part_of_nginx_is_lost(parts in some(nginx_parts())) {
        each_part_counts(&parts, nginx_file, Dialect::Nginx).map_err(TestCaseError::fail)?;
    }
}
