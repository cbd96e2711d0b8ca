use super::build::MAX_NODES;
use super::node::resolve_plain;
use super::*;

fn tree(text: &str) -> Tree {
    let (tree, diagnostics, complete) = parse(text);
    assert!(complete && diagnostics.is_empty(), "{diagnostics:?}");
    tree
}

/// Every scalar with its path and the text at its place.
fn scalars(text: &str) -> Vec<(String, String)> {
    let tree = tree(text);
    let mut found = Vec::new();
    let mut open: Vec<NodeId> = tree.root().into_iter().collect();
    while let Some(id) = open.pop() {
        match tree.value(id) {
            NodeValue::Scalar { .. } => {
                found.push((tree.path(id), text[tree.span(id)].to_owned()));
            }
            NodeValue::List(children) | NodeValue::Map(children) => open.extend(children.iter().rev()),
        }
    }
    found
}

fn check(text: &str, expected: &[(&str, &str)]) {
    let found = scalars(text);
    let found: Vec<(&str, &str)> = found.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    assert_eq!(found, expected);
}

#[test]
fn value_has_its_path_and_place() {
    check(
        "a: 1\nb:\n  - x\n  - { c: 'y', d: [z, \"w\"] }\n",
        &[("a", "1"), ("b[0]", "x"), ("b[1].c", "'y'"), ("b[1].d[0]", "z"), ("b[1].d[1]", "\"w\"")],
    );
}

#[test]
fn places_after_wide_characters_and_carriage_returns_are_right() {
    check("# 🦀 größer\r\nä: wörd\r\nb: [🦀, x]\r\n", &[("ä", "wörd"), ("b[0]", "🦀"), ("b[1]", "x")]);
}

#[test]
fn alias_has_its_own_paths_and_the_place_of_its_anchor() {
    check("a: &x { b: 1 }\nc: *x\nd: [*x]\n", &[("a.b", "1"), ("c.b", "1"), ("d[0].b", "1")]);
}

#[test]
fn plain_scalars_resolve_by_the_core_schema() {
    for (text, expected) in [
        ("", Resolved::Null),
        ("~", Resolved::Null),
        ("Null", Resolved::Null),
        ("true", Resolved::Bool(true)),
        ("FALSE", Resolved::Bool(false)),
        ("yes", Resolved::Text("yes")),
        ("off", Resolved::Text("off")),
        ("tRue", Resolved::Text("tRue")),
        ("0", Resolved::Int(0)),
        ("-12", Resolved::Int(-12)),
        ("+7", Resolved::Int(7)),
        ("010", Resolved::Int(10)),
        ("0x1F", Resolved::Int(31)),
        ("0o17", Resolved::Int(15)),
        ("99999999999999999999", Resolved::Int(i64::MAX)),
        ("1.5", Resolved::Float(1.5)),
        ("1e3", Resolved::Float(1000.0)),
        ("-", Resolved::Text("-")),
        ("1.2.3", Resolved::Text("1.2.3")),
        ("1_000", Resolved::Text("1_000")),
        ("0x", Resolved::Text("0x")),
        ("inf", Resolved::Text("inf")),
    ] {
        assert_eq!(resolve_plain(text), expected, "{text}");
    }
}

#[test]
fn quoted_scalars_are_text() {
    let tree = tree("a: '5'\nb: \"null\"\nc: \"x\\r\\n\"\n");
    let Some(NodeValue::Map(children)) = tree.root().map(|root| tree.value(root)) else { panic!("a mapping") };
    let resolved: Vec<_> = children.iter().filter_map(|child| tree.resolve(*child)).collect();
    assert_eq!(resolved, [Resolved::Text("5"), Resolved::Text("null"), Resolved::Text("x\r\n")]);
}

#[test]
fn number_of_values_is_bounded() {
    let text = format!("[{}]", "1,".repeat(MAX_NODES));
    let (_, diagnostics, complete) = parse(&text);
    assert!(!complete);
    assert_eq!(diagnostics.last().map(|diagnostic| diagnostic.message.as_str()), Some("more than 1000000 values"));
}
