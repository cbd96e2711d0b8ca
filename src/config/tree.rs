//! YAML text as a tree in which every key and value knows its place. Anchors and aliases are
//! expanded here, so nothing downstream knows of them; duplicate keys are found here.

use std::collections::HashMap;
use std::ops::Range;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span, StrInput};

use super::report::{Fault, Problem};

/// Deepest nesting of mappings and lists. The configuration language needs 6.
const MAX_DEPTH: usize = 64;

/// Values in one file, those from aliases included.
const MAX_NODES: usize = 1_000_000;

/// Values that all aliases of a file may expand to: a few lines of aliases of aliases could
/// otherwise stand for more values than fit in memory.
const MAX_ALIASED: usize = 100_000;

/// A value of a [`Tree`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct NodeId(u32);

impl NodeId {
    /// As a number, for the way through serde.
    pub(crate) fn number(self) -> u32 {
        self.0
    }

    /// The reverse of [`NodeId::number`].
    pub(crate) fn from_number(number: u32) -> NodeId {
        NodeId(number)
    }
}

/// A parsed document.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    nodes: Vec<Node>,
    root: Option<NodeId>,
}

/// One value, how it is reached and where it stands.
#[derive(Debug)]
struct Node {
    parent: Option<NodeId>,
    step: Step,
    span: Range<usize>,
    value: Value,
}

/// The step from a parent to its child.
#[derive(Clone, Debug)]
enum Step {
    Root,
    Index(usize),
    Key { name: Box<str>, span: Range<usize> },
}

/// What a node is.
#[derive(Debug)]
pub(crate) enum Value {
    /// Text as it is after YAML's escapes. Only a plain one can be a number, a truth value or null.
    Scalar {
        text: Box<str>,
        plain: bool,
        escapes: bool,
    },
    List(Vec<NodeId>),
    Map(Vec<NodeId>),
}

/// A plain scalar by YAML 1.2's core schema, in which `yes`, `no`, `on` and `off` are text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Resolved<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(&'a str),
}

impl Tree {
    /// The value of the whole document; `None` for an empty one.
    pub(crate) fn root(&self) -> Option<NodeId> {
        self.root
    }

    /// A value.
    pub(crate) fn value(&self, id: NodeId) -> &Value {
        &self.node(id).value
    }

    /// The place of a scalar; of a list or a mapping, the place of its key, which is what a reader
    /// looks for, or its beginning.
    pub(crate) fn span(&self, id: NodeId) -> Range<usize> {
        let node = self.node(id);
        match (&node.value, &node.step) {
            (Value::List(_) | Value::Map(_), Step::Key { span, .. }) => span.clone(),
            _ => node.span.clone(),
        }
    }

    /// The place of the key of a value, or of the value if it has no key.
    pub(crate) fn key_span(&self, id: NodeId) -> Range<usize> {
        match &self.node(id).step {
            Step::Key { span, .. } => span.clone(),
            Step::Index(_) | Step::Root => self.span(id),
        }
    }

    /// The key that leads to a value in its mapping.
    pub(crate) fn key(&self, id: NodeId) -> Option<&str> {
        match &self.node(id).step {
            Step::Key { name, .. } => Some(name),
            Step::Index(_) | Step::Root => None,
        }
    }

    /// How a value is reached: `pools[1].backends[0].weight`; empty for the document.
    pub(crate) fn path(&self, id: NodeId) -> String {
        let mut steps = Vec::new();
        let mut at = Some(id);
        while let Some(id) = at {
            let node = self.node(id);
            steps.push(&node.step);
            at = node.parent;
        }
        let mut path = String::new();
        for step in steps.into_iter().rev() {
            match step {
                Step::Root => {}
                Step::Index(index) => path.push_str(&format!("[{index}]")),
                Step::Key { name, .. } => {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.push_str(&name.escape_debug().to_string());
                }
            }
        }
        path
    }

    /// A scalar's meaning; `None` for lists and mappings.
    pub(crate) fn resolve(&self, id: NodeId) -> Option<Resolved<'_>> {
        match self.value(id) {
            Value::Scalar { text, plain: true, .. } => Some(resolve_plain(text)),
            Value::Scalar { text, .. } => Some(Resolved::Text(text)),
            Value::List(_) | Value::Map(_) => None,
        }
    }

    /// Whether a value is null: `null`, `~` or nothing at all.
    pub(crate) fn is_null(&self, id: NodeId) -> bool {
        self.resolve(id) == Some(Resolved::Null)
    }

    /// A scalar as it is written, without quotes.
    pub(crate) fn text(&self, id: NodeId) -> Option<&str> {
        match self.value(id) {
            Value::Scalar { text, .. } => Some(text),
            Value::List(_) | Value::Map(_) => None,
        }
    }

    fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    fn add(&mut self, node: Node) -> NodeId {
        // MAX_NODES keeps this far from truncation.
        let id = NodeId(self.nodes.len() as u32);
        self.nodes.push(node);
        id
    }
}

/// Reads one document. Duplicate keys do not end the reading. Errors of syntax do: they are the last
/// of the problems then, and the third value, whether the tree is complete, is false.
pub(crate) fn parse(text: &str) -> (Tree, Vec<Problem>, bool) {
    let mut builder = Builder {
        tree: Tree::default(),
        problems: Vec::new(),
        open: Vec::new(),
        anchors: HashMap::new(),
        aliased: 0,
        documents: 0,
        places: Places { text, chars: 0, bytes: 0 },
    };
    let result = builder.run(text);
    let complete = result.is_ok();
    builder.problems.extend(result.err().map(|problem| *problem));
    (builder.tree, builder.problems, complete)
}

/// A list or mapping whose end has not been seen yet.
struct Open {
    id: NodeId,
    anchor: usize,
    /// The key whose value comes next.
    key: Option<(Box<str>, Range<usize>)>,
    /// The keys so far.
    seen: HashMap<Box<str>, Range<usize>>,
}

struct Builder<'a> {
    tree: Tree,
    problems: Vec<Problem>,
    open: Vec<Open>,
    anchors: HashMap<usize, NodeId>,
    aliased: usize,
    documents: usize,
    places: Places<'a>,
}

/// Boxed, as the error is far larger than the success.
type Outcome = Result<(), Box<Problem>>;

impl Builder<'_> {
    fn run(&mut self, text: &str) -> Outcome {
        let mut parser = Parser::new(StrInput::new(text));
        while let Some(next) = parser.next_event() {
            let (event, span) = next.map_err(|error| self.syntax(text, &error))?;
            self.event(event, span)?;
        }
        Ok(())
    }

    fn event(&mut self, event: Event<'_>, span: Span) -> Outcome {
        let span = self.places.span(span);
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return fail(span, "a second document begins here", "one file is one document: take the `---` out");
                }
            }
            Event::Alias(anchor) => return self.alias(anchor, span),
            Event::Scalar(text, style, anchor, tag) => {
                if tag.is_some() {
                    return fail(span, "tags (`!...`) have no meaning here", "take the tag out");
                }
                let plain = style == ScalarStyle::Plain;
                if self.wants_key() {
                    if anchor != 0 {
                        return fail(span, "an anchor on a key has no use", "put the `&` before the value");
                    }
                    return self.key(&text, plain, span);
                }
                let value = Value::Scalar { text: text.into(), plain, escapes: style == ScalarStyle::DoubleQuoted };
                let id = self.attach(value, span)?;
                self.anchor(anchor, id);
            }
            Event::SequenceStart(anchor, tag) => {
                return self.start(Value::List(Vec::new()), anchor, tag.is_some(), span);
            }
            Event::MappingStart(anchor, tag) => {
                return self.start(Value::Map(Vec::new()), anchor, tag.is_some(), span);
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(open) = self.open.pop() {
                    self.anchor(open.anchor, open.id);
                }
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        Ok(())
    }

    fn wants_key(&self) -> bool {
        self.open.last().is_some_and(|open| open.key.is_none() && matches!(self.tree.value(open.id), Value::Map(_)))
    }

    fn key(&mut self, name: &str, plain: bool, span: Range<usize>) -> Outcome {
        if plain && name == "<<" {
            return fail(
                span,
                "the merge key `<<` is not supported",
                "write the keys out, or give a whole value an `&anchor` and use it as `*anchor`",
            );
        }
        let Some(open) = self.open.last_mut() else {
            return Ok(());
        };
        if let Some(first) = open.seen.get(name) {
            let first = first.clone();
            let path = self.tree.path(open.id);
            let dot = if path.is_empty() { "" } else { "." };
            let fault =
                Fault::new(format!("`{path}{dot}{}` is given twice", name.escape_debug())).hint("keep one of the two");
            self.problems.push(Problem::error(Some(span.clone()), fault).other(first, "first here"));
        } else {
            open.seen.insert(name.into(), span.clone());
        }
        open.key = Some((name.into(), span));
        Ok(())
    }

    fn start(&mut self, value: Value, anchor: usize, tagged: bool, span: Range<usize>) -> Outcome {
        if tagged {
            return fail(span, "tags (`!...`) have no meaning here", "take the tag out");
        }
        if self.wants_key() {
            return fail(span, "a key must be a single word", "a value in braces or brackets needs a key before it");
        }
        if self.open.len() >= MAX_DEPTH {
            return fail(
                span,
                format!("nested deeper than {MAX_DEPTH} levels"),
                "no part of the configuration is that deep",
            );
        }
        let id = self.attach(value, span)?;
        self.open.push(Open { id, anchor, key: None, seen: HashMap::new() });
        Ok(())
    }

    /// Adds a value to whatever is open.
    fn attach(&mut self, value: Value, span: Range<usize>) -> Result<NodeId, Box<Problem>> {
        if self.tree.nodes.len() >= MAX_NODES {
            fail(span.clone(), format!("more than {MAX_NODES} values"), "split the file")?;
        }
        let id = self.tree.add(Node { parent: None, step: Step::Root, span, value });
        self.link(id);
        Ok(id)
    }

    /// Makes a value the next child of whatever is open.
    fn link(&mut self, id: NodeId) {
        let Some(open) = self.open.last_mut() else {
            self.tree.root.get_or_insert(id);
            return;
        };
        let parent = open.id;
        let step = match (open.key.take(), &mut self.tree.nodes[parent.0 as usize].value) {
            (Some((name, span)), Value::Map(children)) => {
                // The value of a duplicate key is read for its errors of syntax, and left out.
                if open.seen.get(&name).is_some_and(|first| *first == span) {
                    children.push(id);
                }
                Step::Key { name, span }
            }
            (_, Value::List(children)) => {
                children.push(id);
                Step::Index(children.len() - 1)
            }
            _ => Step::Root,
        };
        let node = &mut self.tree.nodes[id.0 as usize];
        node.parent = Some(parent);
        node.step = step;
    }

    fn anchor(&mut self, anchor: usize, id: NodeId) {
        if anchor != 0 {
            self.anchors.insert(anchor, id);
        }
    }

    fn alias(&mut self, anchor: usize, span: Range<usize>) -> Outcome {
        // An anchor is known once its value has ended, so that no value can contain itself.
        let Some(original) = self.anchors.get(&anchor).copied() else {
            return fail(span, "an alias inside the value that it stands for", "a value cannot contain itself");
        };
        if self.wants_key() {
            return fail(span, "an alias cannot be a key", "write the key out");
        }
        let id = self.copy(original, self.open.len(), &span)?;
        self.link(id);
        Ok(())
    }

    /// A copy of a value and all below it: each copy has a path of its own. The places stay those of
    /// the original, which is the text to correct. The depth bounds the recursion.
    fn copy(&mut self, id: NodeId, depth: usize, alias: &Range<usize>) -> Result<NodeId, Box<Problem>> {
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
            Value::Scalar { text, plain, escapes } => {
                let value = Value::Scalar { text: text.clone(), plain: *plain, escapes: *escapes };
                return Ok(self.tree.add(Node { parent: None, step, span, value }));
            }
            Value::List(children) => (children.clone(), true),
            Value::Map(children) => (children.clone(), false),
        };
        let mut copies = Vec::with_capacity(children.len());
        for child in children {
            copies.push(self.copy(child, depth + 1, alias)?);
        }
        let value = if list { Value::List(copies.clone()) } else { Value::Map(copies.clone()) };
        let copy = self.tree.add(Node { parent: None, step, span, value });
        for child in copies {
            self.tree.nodes[child.0 as usize].parent = Some(copy);
        }
        Ok(copy)
    }

    /// An error of the YAML parser in our words where the cause is a common one.
    fn syntax(&mut self, text: &str, error: &ScanError) -> Box<Problem> {
        let at = self.places.byte(error.marker());
        let mut fault = Fault::new(format!("not valid YAML: {}", error.info()));
        let before = &text[..at];
        let start = before.rfind('\n').map_or(0, |at| at + 1);
        let line = text[start..].split('\n').next().unwrap_or_default();
        if line.contains("]:") {
            fault = fault.hint("an IPv6 address needs quotes: \"[::1]:8080\"");
        } else if line.contains('\t') {
            fault = fault.hint("YAML is indented with spaces, not with tabs");
        } else if line.contains(": *") || line.contains("[*") || line.contains("- *") {
            fault = fault.hint("text that begins with `*` needs quotes");
        } else {
            fault = fault.hint("look at the indentation, the quotes and the brackets here and just above");
        }
        Box::new(Problem::error(Some(at..at), fault))
    }
}

fn fail(span: Range<usize>, message: impl Into<String>, hint: &str) -> Outcome {
    Err(Box::new(Problem::error(Some(span), Fault::new(message).hint(hint))))
}

/// Turns the parser's places, counted in characters, into bytes. Places come almost in order, so a
/// cursor walks along instead of a table of all characters.
struct Places<'a> {
    text: &'a str,
    chars: usize,
    bytes: usize,
}

impl Places<'_> {
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

fn resolve_plain(text: &str) -> Resolved<'_> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Resolved::Null,
        "true" | "True" | "TRUE" => return Resolved::Bool(true),
        "false" | "False" | "FALSE" => return Resolved::Bool(false),
        _ => {}
    }
    if let Some(int) = integer(text) {
        return Resolved::Int(int);
    }
    let number = |c: char| matches!(c, '0'..='9' | '+' | '-' | '.' | 'e' | 'E');
    if text.contains(|c: char| c.is_ascii_digit())
        && text.chars().all(number)
        && let Ok(float) = text.parse()
    {
        return Resolved::Float(float);
    }
    Resolved::Text(text)
}

/// A number too large for an i64 becomes the nearest one: it is out of every range either way, and
/// messages show it as written.
fn integer(text: &str) -> Option<i64> {
    let (digits, radix) = if let Some(hex) = text.strip_prefix("0x") {
        (hex, 16)
    } else if let Some(octal) = text.strip_prefix("0o") {
        (octal, 8)
    } else {
        (text.strip_prefix(['+', '-']).unwrap_or(text), 10)
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    let size = i64::from_str_radix(digits, radix).unwrap_or(i64::MAX);
    Some(if text.starts_with('-') { -size } else { size })
}
