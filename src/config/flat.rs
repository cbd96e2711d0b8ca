//! A tree as one text, in which aliases, merge keys and included files are written out. Variables stay as they were written.

use super::source::Source;
use super::tree::{NodeId, NodeValue, Tree};

/// YAML that means the same. Each line ends with a comment that says where it is from.
pub(crate) fn flat(tree: &Tree, source: &Source) -> String {
    let mut writer = FlatWriter { tree, source, text: String::new() };
    if let Some(root) = tree.root() {
        writer.value(root, 0);
    }
    writer.text
}

struct FlatWriter<'t> {
    tree: &'t Tree,
    source: &'t Source,
    text: String,
}

impl FlatWriter<'_> {
    /// A value, whose own line has begun. The tree's depth bounds the recursion.
    fn value(&mut self, id: NodeId, depth: usize) {
        let place = self.source.place(&self.tree.span(id));
        match self.tree.value(id) {
            NodeValue::Scalar { .. } => {
                let scalar = self.scalar(id);
                self.end_line(&scalar, &place);
            }
            NodeValue::List(elements) if elements.is_empty() => self.end_line("[]", &place),
            NodeValue::List(elements) => {
                self.end_line("", &place);
                for element in elements {
                    self.begin_line(depth, "-");
                    self.value(*element, depth + 1);
                }
            }
            NodeValue::Map(_) => self.map(id, depth, &place),
        }
    }

    fn map(&mut self, id: NodeId, depth: usize, place: &str) {
        // What is included is in this text.
        let is_included = |child: &NodeId| depth == 0 && self.tree.key(*child) == Some("include");
        let children: Vec<NodeId> =
            self.tree.children(id).iter().copied().filter(|child| !is_included(child)).collect();
        if children.is_empty() {
            return self.end_line("{}", place);
        }
        if depth > 0 {
            self.end_line("", place);
        }
        for child in children {
            let key = quoted(self.tree.key(child).unwrap_or_default().as_bytes());
            self.begin_line(depth, &format!("{key}:"));
            self.value(child, depth + 1);
        }
    }

    fn begin_line(&mut self, depth: usize, with: &str) {
        self.text.extend(std::iter::repeat_n("  ", depth));
        self.text.push_str(with);
    }

    fn end_line(&mut self, with: &str, place: &str) {
        let space = if with.is_empty() { "" } else { " " };
        // The name of a file could end the line.
        self.text.push_str(&format!("{space}{with} # {}\n", place.escape_debug()));
    }

    /// A scalar as it is in its file.
    fn scalar(&self, id: NodeId) -> String {
        let NodeValue::Scalar { text, plain, bytes, written, .. } = self.tree.value(id) else {
            return String::new();
        };
        let (text, bytes, plain) = match written {
            Some(written) => (&written.text, &written.bytes, written.plain),
            None => (text, bytes, *plain),
        };
        match bytes {
            // As long as it is in one line, what was plain in its place is plain here.
            None if plain && !text.contains(char::is_control) => text.to_string(),
            None => quoted(text.as_bytes()),
            Some(bytes) => quoted(bytes),
        }
    }
}

/// In double quotes. What is not UTF-8 is written as the bytes that it is.
fn quoted(bytes: &[u8]) -> String {
    let mut text = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter {
                '"' | '\\' => text.extend(['\\', letter]),
                ' '..='~' => text.push(letter),
                letter if letter.is_alphanumeric() => text.push(letter),
                letter => text.push_str(&format!("\\U{:08x}", u32::from(letter))),
            }
        }
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("\\x{byte:02x}")));
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::tree::parse;

    fn flattened(text: &str) -> String {
        let (tree, diagnostics, complete) = parse(text);
        assert!(complete && diagnostics.is_empty(), "{diagnostics:?}");
        flat(&tree, &Source::new("x.yaml", text))
    }

    /// A value without places: what it means.
    fn meaning(tree: &Tree, id: NodeId) -> String {
        match tree.value(id) {
            NodeValue::Scalar { .. } => format!("{:?} {:?}", tree.resolve(id), tree.bytes(id)),
            NodeValue::List(elements) => {
                format!("[{}]", elements.iter().map(|it| meaning(tree, *it)).collect::<Vec<_>>().join(", "))
            }
            NodeValue::Map(children) => {
                let entry = |it: &NodeId| format!("{:?}: {}", tree.key(*it), meaning(tree, *it));
                format!("{{{}}}", children.iter().map(entry).collect::<Vec<_>>().join(", "))
            }
        }
    }

    fn meaning_of(text: &str) -> String {
        let (tree, diagnostics, complete) = parse(text);
        assert!(complete && diagnostics.is_empty(), "{diagnostics:?}\n{text}");
        meaning(&tree, tree.root().unwrap())
    }

    #[test]
    fn lines_are_short_and_say_where_they_are_from() {
        let text = "a: &a { b: [1, 'x: y'], c: }\nd:\n  <<: *a\n  e: []\n";
        let expected = "\"a\": # x.yaml:1:1\n  \"b\": # x.yaml:1:9\n    - 1 # x.yaml:1:13\n    - \"x: y\" # x.yaml:1:16\n  \
                        \"c\": # x.yaml:1:25\n\"d\": # x.yaml:2:1\n";
        let flat = flattened(text);
        assert!(flat.starts_with(expected), "{flat}");
        assert_eq!(meaning_of(&flat), meaning_of("a: { b: [1, 'x: y'], c: }\nd: { e: [], b: [1, 'x: y'], c: }\n"));
    }

    #[test]
    fn it_means_the_same() {
        for text in [
            r#"a: "\xff\u00ff\n""#,
            "a: >\n  folded\n  text\n\n  more\n",
            "a: 'null'\nb: null\nc: ~\nd: \"\"\n",
            "- [[], {}]\n- - x\n  - y: z\n",
            "a: ${X:-b:c}\n",
            "'# ä': \"a # b\"\n",
            "plain: a\n  b\n\n  c\n",
        ] {
            assert_eq!(meaning_of(&flattened(text)), meaning_of(text), "{text}");
        }
        assert_eq!(flattened("include: x\n"), " {} # x.yaml:1:1\n");
    }

    proptest! {
        #[test]
        fn any_scalar_means_the_same(text in ".*", key in "[ -~ä🦀]{1,9}") {
            let yaml = format!("{}: [{}]\n", quoted(key.as_bytes()), quoted(text.as_bytes()));
            prop_assert_eq!(meaning_of(&flattened(&yaml)), meaning_of(&yaml));
        }
    }
}
