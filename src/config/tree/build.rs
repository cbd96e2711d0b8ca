//! Builds the tree from the parser's events. Expands aliases and merge keys, finds duplicate keys, and bounds the cost of a file.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span, StrInput};

use super::bytes;
use super::node::{Node, NodeId, NodeValue, PathStep, Tree};
use crate::config::report::{Diagnostic, shown};

/// Deepest nesting of mappings and lists. The configuration language needs 6.
const MAX_DEPTH: usize = 64;

/// Most values of one file, expanded aliases included.
pub(super) const MAX_NODES: usize = 1_000_000;

/// Most values that the aliases of a file expand to. A few lines of nested aliases could otherwise exhaust memory.
const MAX_ALIASED: usize = 100_000;

/// The merge key. In quotes, it is a key like any other.
const MERGE: &str = "<<";

/// As [`parse_at`], of a text alone.
#[cfg(test)]
pub(crate) fn parse(text: &str) -> (Tree, Vec<Diagnostic>, bool) {
    parse_at(text, 0)
}

/// Reads the document of a text that begins at `base` among several; the third value is whether the tree is complete. A duplicate
/// key does not stop it. A syntax error does, and is the last of the diagnostics.
pub(crate) fn parse_at(text: &str, base: usize) -> (Tree, Vec<Diagnostic>, bool) {
    let (mut tree, mut diagnostics, complete) = parse_alone(text);
    if base > 0 {
        tree.move_by(base);
        diagnostics.iter_mut().for_each(|diagnostic| diagnostic.move_by(base));
    }
    (tree, diagnostics, complete)
}

fn parse_alone(text: &str) -> (Tree, Vec<Diagnostic>, bool) {
    let mut builder = Builder {
        tree: Tree::default(),
        diagnostics: Vec::new(),
        open: Vec::new(),
        anchors: HashMap::new(),
        aliased: 0,
        documents: 0,
        places: ByteOffsets { text, chars: 0, bytes: 0 },
    };
    let result = builder.run(text);
    let complete = result.is_ok();
    builder.diagnostics.extend(result.err().map(|diagnostic| *diagnostic));
    (builder.tree, builder.diagnostics, complete)
}

/// A list or mapping that has not ended yet.
struct OpenNode {
    id: NodeId,
    anchor: usize,
    /// The key whose value comes next.
    key: Option<OpenKey>,
    /// The keys so far.
    seen: HashMap<Box<str>, Range<usize>>,
    /// The place of its merge key, and what is merged.
    merge_key: Option<Range<usize>>,
    merge: Option<NodeId>,
}

struct OpenKey {
    name: Box<str>,
    span: Range<usize>,
    is_merge: bool,
}

struct Builder<'a> {
    tree: Tree,
    diagnostics: Vec<Diagnostic>,
    open: Vec<OpenNode>,
    anchors: HashMap<usize, NodeId>,
    aliased: usize,
    documents: usize,
    places: ByteOffsets<'a>,
}

/// Boxed: the error is far larger than the success.
type ParseResult = Result<(), Box<Diagnostic>>;

impl Builder<'_> {
    fn run(&mut self, text: &str) -> ParseResult {
        let mut parser = Parser::new(StrInput::new(text));
        while let Some(next) = parser.next_event() {
            let (event, span) = next.map_err(|error| self.syntax(text, &error))?;
            self.event(event, span)?;
        }
        Ok(())
    }

    fn event(&mut self, event: Event<'_>, span: Span) -> ParseResult {
        let span = self.places.span(span);
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return fail(
                        span,
                        "a second YAML document begins here",
                        "a file is one document: remove the `---`",
                    );
                }
            }
            Event::Alias(anchor) => return self.alias(anchor, span),
            Event::Scalar(text, style, anchor, tag) => {
                if tag.is_some() {
                    return fail(span, "YAML tags (`!...`) are not supported", "remove the tag");
                }
                let plain = style == ScalarStyle::Plain;
                if self.wants_key() {
                    if anchor != 0 {
                        return fail(span, "anchors on keys are not supported", "put the `&` before the value");
                    }
                    return self.key(&text, plain, span);
                }
                let escapes = style == ScalarStyle::DoubleQuoted;
                let source = self.places.text.get(span.clone()).filter(|_| escapes);
                let bytes = source.and_then(|source| bytes::of(source, &text));
                let value = NodeValue::Scalar { text: text.into(), plain, escapes, bytes, written: None };
                let id = self.attach(value, span)?;
                self.anchor(anchor, id);
            }
            Event::SequenceStart(anchor, tag) => {
                return self.start(NodeValue::List(Vec::new()), anchor, tag.is_some(), span);
            }
            Event::MappingStart(anchor, tag) => {
                return self.start(NodeValue::Map(Vec::new()), anchor, tag.is_some(), span);
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(open) = self.open.pop() {
                    self.merge(&open)?;
                    self.anchor(open.anchor, open.id);
                }
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        Ok(())
    }

    fn wants_key(&self) -> bool {
        self.open.last().is_some_and(|open| open.key.is_none() && matches!(self.tree.value(open.id), NodeValue::Map(_)))
    }

    fn key(&mut self, name: &str, plain: bool, span: Range<usize>) -> ParseResult {
        let Some(open) = self.open.last_mut() else {
            return Ok(());
        };
        let is_merge = plain && name == MERGE;
        let (first, hint) = match is_merge {
            true => (open.merge_key.get_or_insert(span.clone()), "merge several mappings by a list: <<: [*a, *b]"),
            false => (open.seen.entry(name.into()).or_insert(span.clone()), "keep one of the two"),
        };
        if *first != span {
            let first = first.clone();
            let path = self.tree.path(open.id);
            let dot = if path.is_empty() { "" } else { "." };
            let diagnostic = Diagnostic::new(format!("`{path}{dot}{}` is given twice", shown(name))).hint(hint);
            self.diagnostics.push(diagnostic.at(span.clone()).related(first, "first here"));
        }
        open.key = Some(OpenKey { name: name.into(), span, is_merge });
        Ok(())
    }

    fn start(&mut self, value: NodeValue, anchor: usize, tagged: bool, span: Range<usize>) -> ParseResult {
        if tagged {
            return fail(span, "YAML tags (`!...`) are not supported", "remove the tag");
        }
        if self.wants_key() {
            return fail(span, "a key must be a scalar", "a value in braces or brackets needs a key before it");
        }
        if self.open.len() >= MAX_DEPTH {
            return fail(
                span,
                format!("nested deeper than {MAX_DEPTH} levels"),
                "no part of the configuration is that deep",
            );
        }
        let id = self.attach(value, span)?;
        self.open.push(OpenNode { id, anchor, key: None, seen: HashMap::new(), merge_key: None, merge: None });
        Ok(())
    }

    /// Adds a value to the innermost open node.
    fn attach(&mut self, value: NodeValue, span: Range<usize>) -> Result<NodeId, Box<Diagnostic>> {
        if self.tree.nodes.len() >= MAX_NODES {
            fail(span.clone(), format!("more than {MAX_NODES} values"), "split the file")?;
        }
        let id = self.tree.add(Node { parent: None, step: PathStep::Root, span, value });
        self.link(id);
        Ok(id)
    }

    /// Makes a node the next child of the innermost open node.
    fn link(&mut self, id: NodeId) {
        let Some(open) = self.open.last_mut() else {
            self.tree.root.get_or_insert(id);
            return;
        };
        let parent = open.id;
        let step = match (open.key.take(), &mut self.tree.nodes[parent.0 as usize].value) {
            (Some(OpenKey { name, span, is_merge: true }), _) => {
                open.merge.get_or_insert(id);
                PathStep::Key { name, span }
            }
            (Some(OpenKey { name, span, .. }), NodeValue::Map(children)) => {
                // The value of a duplicate key is parsed for syntax errors, then dropped.
                if open.seen.get(&name).is_some_and(|first| *first == span) {
                    children.push(id);
                }
                PathStep::Key { name, span }
            }
            (_, NodeValue::List(children)) => {
                children.push(id);
                PathStep::Index(children.len() - 1)
            }
            _ => PathStep::Root,
        };
        let node = &mut self.tree.nodes[id.0 as usize];
        node.parent = Some(parent);
        node.step = step;
    }

    /// Adds the keys that a mapping has by its merge key: those that it does not have itself, of several mappings the first's.
    /// Values are not merged with one another.
    fn merge(&mut self, open: &OpenNode) -> ParseResult {
        let (Some(id), Some(span)) = (open.merge, open.merge_key.clone()) else { return Ok(()) };
        let sources = match self.tree.value(id) {
            NodeValue::List(sources) => sources.clone(),
            _ => vec![id],
        };
        let mut keys: HashSet<Box<str>> = open.seen.keys().cloned().collect();
        for source in sources {
            let NodeValue::Map(children) = self.tree.value(source) else {
                let hint = "write <<: *anchor with the anchor of a mapping, or a list of such aliases";
                return fail(span, "the merge key `<<` takes a mapping or a list of mappings", hint);
            };
            for child in children.clone() {
                if self.tree.key(child).is_some_and(|key| keys.insert(key.into())) {
                    self.tree.nodes[child.0 as usize].parent = Some(open.id);
                    if let NodeValue::Map(merged) = &mut self.tree.nodes[open.id.0 as usize].value {
                        merged.push(child);
                    }
                }
            }
        }
        Ok(())
    }

    fn anchor(&mut self, anchor: usize, id: NodeId) {
        if anchor != 0 {
            self.anchors.insert(anchor, id);
        }
    }

    fn alias(&mut self, anchor: usize, span: Range<usize>) -> ParseResult {
        // Anchors are registered at the end of their value: no value can contain itself.
        let Some(original) = self.anchors.get(&anchor).copied() else {
            return fail(span, "the alias is inside the value that it refers to", "a value cannot contain itself");
        };
        if self.wants_key() {
            return fail(span, "an alias cannot be a key", "write the key out");
        }
        let id = self.copy(original, self.open.len(), &span)?;
        self.link(id);
        Ok(())
    }

    /// Copies a subtree. Each copy has its own path; places stay those of the original, which is the text to correct. The
    /// depth bounds the recursion.
    fn copy(&mut self, id: NodeId, depth: usize, alias: &Range<usize>) -> Result<NodeId, Box<Diagnostic>> {
        self.aliased += 1;
        if self.aliased > MAX_ALIASED || self.tree.nodes.len() >= MAX_NODES {
            fail(alias.clone(), format!("aliases stand for more than {MAX_ALIASED} values"), "write the values out")?;
        }
        if depth > MAX_DEPTH {
            fail(
                alias.clone(),
                format!("nested deeper than {MAX_DEPTH} levels"),
                "no part of the configuration is that deep",
            )?;
        }
        let node = self.tree.node(id);
        let (span, step) = (node.span.clone(), node.step.clone());
        let (children, list) = match &node.value {
            // Variables are replaced in the finished tree.
            NodeValue::Scalar { text, plain, escapes, bytes, written: _ } => {
                let (text, bytes) = (text.clone(), bytes.clone());
                let value = NodeValue::Scalar { text, plain: *plain, escapes: *escapes, bytes, written: None };
                return Ok(self.tree.add(Node { parent: None, step, span, value }));
            }
            NodeValue::List(children) => (children.clone(), true),
            NodeValue::Map(children) => (children.clone(), false),
        };
        let mut copies = Vec::with_capacity(children.len());
        for child in children {
            copies.push(self.copy(child, depth + 1, alias)?);
        }
        let value = if list { NodeValue::List(copies.clone()) } else { NodeValue::Map(copies.clone()) };
        let copy = self.tree.add(Node { parent: None, step, span, value });
        for child in copies {
            self.tree.nodes[child.0 as usize].parent = Some(copy);
        }
        Ok(copy)
    }

    /// Rewords the YAML parser's error where the cause is a common one.
    fn syntax(&mut self, text: &str, error: &ScanError) -> Box<Diagnostic> {
        let at = self.places.byte(error.marker());
        if let Some(at) = tab(text, at, error.info()) {
            let line = text[..at].rfind('\n').map_or(0, |at| at + 1);
            let diagnostic = if text[line..at].bytes().all(|byte| byte == b' ' || byte == b'\t') {
                Diagnostic::new("tab in the indentation").hint("indent YAML with spaces")
            } else {
                Diagnostic::new("tab where YAML requires a space").hint("replace it by a space")
            };
            return Box::new(diagnostic.at(at..at + 1));
        }
        let mut diagnostic = Diagnostic::new(format!("not valid YAML: {}", error.info()));
        let before = &text[..at];
        let start = before.rfind('\n').map_or(0, |at| at + 1);
        let line = text[start..].split('\n').next().unwrap_or_default();
        if line.contains("]:") {
            diagnostic = diagnostic.hint("an IPv6 address needs quotes: \"[::1]:8080\"");
        } else if line.contains("${") && line.contains(['{', '[']) && error.info().contains("flow") {
            diagnostic = diagnostic.hint("within braces and brackets, a variable needs quotes: \"${NAME}\"");
        } else if error.info().contains("unprintable") {
            diagnostic = diagnostic.hint("write control characters as escapes in double quotes: \"\\r\\n\"");
        } else if line.contains(": *") || line.contains("[*") || line.contains("- *") {
            diagnostic = diagnostic.hint("text that begins with `*` needs quotes");
        } else {
            diagnostic = diagnostic.hint("check the indentation, quotes and brackets on this line and above");
        }
        Box::new(diagnostic.at(at..at))
    }
}

fn fail(span: Range<usize>, message: impl Into<String>, hint: &str) -> ParseResult {
    Err(Box::new(Diagnostic::new(message).hint(hint).at(span)))
}

/// The tab that caused a syntax error. The parser's mark may be behind it, or at the value before it.
fn tab(text: &str, mark: usize, info: &str) -> Option<usize> {
    if !info.split(' ').any(|word| word.starts_with("tab") || word == "whitespace") {
        return None;
    }
    let line = text[..mark].rfind('\n').map_or(0, |at| at + 1);
    let space = line + text[line..mark].trim_end_matches([' ', '\t']).len();
    let tab = |from: usize, to: usize| text[from..to].find('\t').map(|at| from + at);
    tab(space, mark).or_else(|| tab(mark, text.len()))
}

/// Converts the parser's character offsets to byte offsets. They come almost in order: a cursor instead of a table.
struct ByteOffsets<'a> {
    text: &'a str,
    chars: usize,
    bytes: usize,
}

impl ByteOffsets<'_> {
    fn span(&mut self, span: Span) -> Range<usize> {
        let start = self.byte(&span.start);
        start..self.byte(&span.end).max(start)
    }

    fn byte(&mut self, marker: &Marker) -> usize {
        let target = marker.index();
        if target < self.chars {
            let back = self.text[..self.bytes].chars().rev().take(self.chars - target);
            self.bytes -= back.map(char::len_utf8).sum::<usize>();
            self.chars = target;
        } else {
            let ahead = self.text[self.bytes..].chars().take(target - self.chars);
            let (count, bytes) = ahead.fold((0, 0), |(n, bytes), c| (n + 1, bytes + c.len_utf8()));
            self.chars += count;
            self.bytes += bytes;
        }
        self.bytes
    }
}
