use std::collections::BTreeMap;

use proptest::prelude::*;

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

#[test]
fn merge_key_adds_what_the_mapping_does_not_have() {
    check(
        "x: &x { a: 1, b: { c: 2 } }\ny: &y { a: 3, d: 4 }\none: { <<: *x, b: 5 }\ntwo:\n  <<: [*x, *y]\n  e: 6\nthree: { <<: { f: 7 } }\n",
        &[
            ("x.a", "1"),
            ("x.b.c", "2"),
            ("y.a", "3"),
            ("y.d", "4"),
            ("one.b", "5"),
            ("one.a", "1"),
            ("two.e", "6"),
            ("two.a", "1"),
            ("two.b.c", "2"),
            ("two.d", "4"),
            ("three.f", "7"),
        ],
    );
    // Of a mapping that has merged keys itself; in quotes, it is a key.
    check(
        "a: &a { k: 1 }\nb: &b { <<: *a, l: 2 }\nc: { <<: *b, '<<': 3 }\n",
        &[("a.k", "1"), ("b.l", "2"), ("b.k", "1"), ("c.<<", "3"), ("c.l", "2"), ("c.k", "1")],
    );
}

#[test]
fn merge_key_of_something_else_is_an_error() {
    for (text, message, place) in [
        ("a: &a 1\nb: { <<: *a }", "the merge key `<<` takes a mapping or a list of mappings", "<<"),
        ("b: { <<: }", "the merge key `<<` takes a mapping or a list of mappings", "<<"),
        ("a: &a {}\nb: { <<: [*a, 1] }", "the merge key `<<` takes a mapping or a list of mappings", "<<"),
        ("a: &a { <<: *a }", "the alias is inside the value that it refers to", "*a"),
        ("a: &a {}\nb: { <<: *a, c: 1, <<: *a }", "`b.<<` is given twice", "<<"),
    ] {
        let (_, diagnostics, _) = parse(text);
        let [diagnostic] = diagnostics.as_slice() else { panic!("{text}: {diagnostics:?}") };
        assert_eq!((diagnostic.message.as_str(), &text[diagnostic.span.clone().unwrap()]), (message, place), "{text}");
        assert!(diagnostic.hint.is_some());
    }
}

/// Mappings by name, and what each merges, of those before it.
fn mappings() -> impl Strategy<Value = Vec<(Vec<u8>, Vec<prop::sample::Index>)>> {
    let keys = prop::collection::btree_set(0..6_u8, 0..4).prop_map(|keys| keys.into_iter().collect());
    let merged = prop::collection::vec(any::<prop::sample::Index>(), 0..3);
    prop::collection::vec((keys, merged), 1..6)
}

proptest! {
    /// A model of the merge key: maps of maps.
    #[test]
    fn merge_is_that_of_maps(mappings in mappings()) {
        let (mut text, mut models) = (String::new(), Vec::<BTreeMap<String, String>>::new());
        for (number, (keys, merged)) in mappings.iter().enumerate() {
            let own: Vec<String> = keys.iter().map(|key| format!("k{key}: v{number}_{key}")).collect();
            let sources: Vec<usize> =
                merged.iter().filter(|_| number > 0).map(|index| index.index(number)).collect();
            let aliases: Vec<String> = sources.iter().map(|source| format!("*m{source}")).collect();
            let merge = match aliases.as_slice() {
                [] => String::new(),
                [one] => format!("<<: {one}, "),
                several => format!("<<: [{}], ", several.join(", ")),
            };
            text.push_str(&format!("m{number}: &m{number} {{ {merge}{} }}\n", own.join(", ")));
            let mut model: BTreeMap<String, String> =
                keys.iter().map(|key| (format!("k{key}"), format!("v{number}_{key}"))).collect();
            for source in sources {
                for (key, value) in models[source].clone() {
                    model.entry(key).or_insert(value);
                }
            }
            models.push(model);
        }
        let tree = tree(&text);
        for (child, model) in tree.children(tree.root().unwrap()).iter().zip(&models) {
            let found: BTreeMap<String, String> = tree.children(*child).iter()
                .map(|it| (tree.key(*it).unwrap().to_owned(), tree.text(*it).unwrap().to_owned())).collect();
            prop_assert_eq!(&found, model, "{}", text);
            for entry in tree.children(*child) {
                prop_assert_eq!(tree.path(*entry), format!("{}.{}", tree.path(*child), tree.key(*entry).unwrap()));
            }
        }
    }

    /// Files that are joined are as one: the same listeners and pools, each at its place.
    #[test]
    fn joined_lists_are_one_list(counts in prop::collection::vec((0..4_usize, any::<bool>()), 1..5)) {
        let mut expected = Vec::new();
        let mut files = Vec::new();
        for (file, (count, has_list)) in counts.iter().enumerate() {
            let elements: Vec<String> = (0..*count).map(|element| format!("f{file}e{element}")).collect();
            expected.extend(elements.iter().filter(|_| *has_list).cloned());
            let list = format!("listeners: [{}]\n", elements.join(", "));
            files.push(if *has_list { list } else { "x-nothing: 1\n".to_owned() });
        }
        let mut base = 0;
        let mut all: Option<Tree> = None;
        for text in &files {
            let (mut tree, diagnostics, _) = parse_at(text, base);
            prop_assert!(diagnostics.is_empty());
            tree.drop_extensions();
            match &mut all {
                None => all = Some(tree),
                Some(all) => prop_assert!(all.join(tree).is_empty()),
            }
            base += text.len() + 1;
        }
        let (tree, text) = (all.unwrap(), files.join("\n"));
        let lists = tree.children(tree.root().unwrap());
        let elements = match lists {
            [] => &[][..],
            [list] => match tree.value(*list) {
                NodeValue::List(elements) => elements,
                _ => panic!("a list"),
            },
            several => panic!("{several:?}"),
        };
        let found: Vec<&str> = elements.iter().map(|it| tree.text(*it).unwrap()).collect();
        prop_assert_eq!(&found, &expected);
        for element in elements {
            prop_assert_eq!(tree.text(*element), Some(&text[tree.span(*element)]));
            prop_assert!(tree.path(*element).starts_with("listeners["));
        }
    }
}

#[test]
fn section_in_two_files_is_an_error_with_both_places() {
    let (first, second) = (
        "log: { level: info }\nlisteners: []\nshutdown:\n",
        "shutdown: { drain: 1s }\nlog: {}\npools: 1\nlisteners: 2\n",
    );
    let (mut tree, ..) = parse(first);
    let (other, ..) = parse_at(second, first.len() + 1);
    let diagnostics = tree.join(other);
    let text = format!("{first}\n{second}");
    let found: Vec<_> = diagnostics
        .iter()
        .map(|it| {
            (it.message.as_str(), it.span.clone().unwrap().start, it.related.as_ref().map(|(span, _)| span.start))
        })
        .collect();
    let at = |what: &str| text.rfind(what).unwrap();
    assert_eq!(
        found,
        [("`log` is in two files", at("log: {}"), Some(0)), ("listeners: expected a list", at("2\n"), None),]
    );
    let keys: Vec<_> = tree.children(tree.root().unwrap()).iter().map(|it| tree.key(*it).unwrap()).collect();
    assert_eq!(keys, ["log", "listeners", "shutdown", "pools"]);
}
