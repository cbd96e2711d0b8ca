//! Calls as they come, and what they ask for.

use std::num::NonZeroU32;

use super::*;
use crate::config::model::{AdminState, ForcedHealth};
use crate::control::edit::BackendValues;

fn parse(method: &str, target: &str, body: &str) -> Result<UnderstoodCall, NoCall> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    UnderstoodCall::parse(&method.parse().unwrap(), path, query, body.as_bytes(), &DataPlane::new(), None)
}

fn edit(method: &str, target: &str, body: &str) -> Edit {
    match parse(method, target, body).unwrap().action {
        Action::Apply(Change::Edit(edit)) => edit,
        other => panic!("{other:?}"),
    }
}

#[test]
fn names_are_decoded_each_by_itself() {
    let body = r#"{"weight":5,"state":"drain","max_connections":7,"backup":true,"forced":"down"}"#;
    let values = BackendValues {
        weight: Some(5),
        max_connections: Some(NonZeroU32::new(7)),
        backup: Some(true),
        state: Some(AdminState::Drain),
        forced: Some(Some(ForcedHealth::Down)),
    };
    let expected = Edit::PatchBackend { pool: "p/q".into(), name: "127.0.0.1:1".into(), values };
    assert_eq!(edit("PATCH", "/api/pools/p%2Fq/backends/127.0.0.1:1", body), expected);
}

#[test]
fn null_is_the_default_and_what_is_not_there_stays() {
    let values = |body: &str| match edit("PATCH", "/api/pools/p/backends/a", body) {
        Edit::PatchBackend { values, .. } => values,
        other => panic!("{other:?}"),
    };
    assert_eq!(values("{}"), BackendValues::default());
    let all = values(r#"{"weight":null,"state":null,"max_connections":null,"backup":null,"forced":null}"#);
    let expected = BackendValues {
        weight: Some(1),
        max_connections: Some(None),
        backup: Some(false),
        state: Some(AdminState::Ready),
        forced: Some(None),
    };
    assert_eq!(all, expected);
    assert_eq!(values(r#"{"max_connections":0}"#).max_connections, Some(None), "0 is no limit, as in the file");
}

#[test]
fn what_is_not_understood_is_said() {
    let cases = [
        ("PATCH", "/api/pools/p/backends/a", r#"{"wieght":5}"#, 400, "wieght"),
        ("PATCH", "/api/pools/p/backends/a", r#"{"weight":1001}"#, 400, "more than 1000"),
        ("PATCH", "/api/pools/p/backends/a", r#"{"address":"127.0.0.1:1"}"#, 400, "PUT"),
        ("PATCH", "/api/pools/p/backends/a?cut=true", "{}", 400, "`cut` is not known"),
        ("PUT", "/api/pools/p/backends/a", r#"{"weight":1}"#, 400, "address is missing"),
        ("PUT", "/api/pools/p/backends/a", r#"{"address":"127.0.0.1"}"#, 400, "address: "),
        ("DELETE", "/api/pools/p/backends/a?wait=5", "", 400, "wait: "),
        ("DELETE", "/api/pools/p/backends/a?cut=yes", "", 400, "cut: expected true or false"),
        ("PATCH", "/api/pools/p", r#"{"balance":"fastest"}"#, 400, "round_robin"),
        ("POST", "/api/pools/p", "{}", 405, "takes PATCH"),
        ("POST", "/api/nothing", "{}", 404, "nothing to change"),
        ("POST", "/api/servers", "{}", 400, "host"),
        ("POST", "/api/servers", r#"{"host":"a","port":1}"#, 400, "pool is missing"),
    ];
    for (method, target, body, status, text) in cases {
        let NoCall { status: found, why } = parse(method, target, body).unwrap_err();
        assert_eq!(found.as_u16(), status, "{method} {target}: {why}");
        assert!(why.contains(text), "{method} {target}: {why}");
    }
}

#[test]
fn end_of_connections_has_a_filter_beside_its_options() {
    let end = |target: &str| match parse("DELETE", target, "") {
        Ok(UnderstoodCall { action: Action::End { id, query }, dry_run, .. }) => Ok((id, query, dry_run)),
        Ok(other) => panic!("{other:?}"),
        Err(NoCall { why, .. }) => Err(why),
    };
    let query = |query: &str, dry_run: bool| Ok((None, query.to_owned(), dry_run));
    assert_eq!(end("/api/connections?pool=p&older=5m"), query("pool=p&older=5m", false));
    assert_eq!(end("/api/connections?pool=p&dry_run=true&older=5m"), query("pool=p&older=5m", true));
    assert_eq!(end("/api/connections?dry%5Frun=false&client=::1"), query("client=::1", false));
    assert_eq!(end("/api/connections/7?dry_run=true"), Ok((Some("7".to_owned()), String::new(), true)));
    assert_eq!(end("/api/connections?dry_run=1"), Err("dry_run: expected true or false, found `1`".to_owned()));
    let twice = end("/api/connections?dry_run=true&pool=p&dry_run=true");
    assert_eq!(twice, Err("dry_run: is given twice".to_owned()));
}

#[test]
fn removal_says_how_long_to_wait_and_whether_to_cut() {
    let call = parse("DELETE", "/api/pools/p/backends/a?wait=30s&cut=true&dry_run=true", "").unwrap();
    let form = AnswerForm::Removed { pool: "p".into(), name: "a".into(), cut: true, wait: Duration::from_secs(30) };
    assert_eq!((call.form, call.dry_run), (form, true));
}
