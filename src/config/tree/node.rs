//! Nodes of a document: their values, paths and places.

use std::collections::HashSet;
use std::ops::Range;

use crate::config::report::{Diagnostic, shown};

/// A value of a [`Tree`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct NodeId(pub(super) u32);

impl NodeId {
    /// A number, to pass through serde.
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
    pub(super) nodes: Vec<Node>,
    pub(super) root: Option<NodeId>,
    /// Scalars without a value, which is reported: a variable is not set.
    pub(super) faulty: HashSet<NodeId>,
}

/// One value, its path and its place.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) parent: Option<NodeId>,
    pub(super) step: PathStep,
    pub(super) span: Range<usize>,
    pub(super) value: NodeValue,
}

/// The step from a parent to its child.
#[derive(Clone, Debug)]
pub(super) enum PathStep {
    Root,
    Index(usize),
    Key { name: Box<str>, span: Range<usize> },
}

/// What a node is.
#[derive(Debug)]
pub(crate) enum NodeValue {
    /// Text after YAML's escapes. Only a plain scalar can be a number, a boolean or null.
    Scalar {
        text: Box<str>,
        plain: bool,
        escapes: bool,
        /// The scalar as bytes; `None` if these are the UTF-8 of `text`.
        bytes: Option<Box<[u8]>>,
        /// As it was before its variables were replaced; the scalar is plain since.
        written: Option<Box<WrittenScalar>>,
    },
    List(Vec<NodeId>),
    Map(Vec<NodeId>),
}

/// A scalar with variables of the environment, as it is in the file.
#[derive(Clone, Debug)]
pub(crate) struct WrittenScalar {
    pub(crate) text: Box<str>,
    pub(crate) bytes: Option<Box<[u8]>>,
    pub(crate) plain: bool,
    /// `${A}, ${B}`; empty if there are only dollars.
    pub(super) variables: String,
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
    pub(crate) fn value(&self, id: NodeId) -> &NodeValue {
        &self.node(id).value
    }

    /// The place of a scalar. Of a list or mapping: its key, which is what the reader looks for, or its beginning.
    pub(crate) fn span(&self, id: NodeId) -> Range<usize> {
        let node = self.node(id);
        match (&node.value, &node.step) {
            (NodeValue::List(_) | NodeValue::Map(_), PathStep::Key { span, .. }) => span.clone(),
            // An empty value has no place of its own.
            (NodeValue::Scalar { .. }, PathStep::Key { span, .. }) if node.span.is_empty() => span.clone(),
            // A block mapping begins at its first key.
            (NodeValue::Map(children), _) => children
                .first()
                .map(|child| self.key_span(*child))
                .filter(|first| first.start == node.span.start)
                .unwrap_or_else(|| node.span.clone()),
            _ => node.span.clone(),
        }
    }

    /// The place of a value's key, or of the value without one.
    pub(crate) fn key_span(&self, id: NodeId) -> Range<usize> {
        match &self.node(id).step {
            PathStep::Key { span, .. } => span.clone(),
            PathStep::Index(_) | PathStep::Root => self.span(id),
        }
    }

    /// The key that leads to a value in its mapping.
    pub(crate) fn key(&self, id: NodeId) -> Option<&str> {
        match &self.node(id).step {
            PathStep::Key { name, .. } => Some(name),
            PathStep::Index(_) | PathStep::Root => None,
        }
    }

    /// The path of a value: `pools[1].backends[0].weight`; empty for the document.
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
                PathStep::Root => {}
                PathStep::Index(index) => path.push_str(&format!("[{index}]")),
                PathStep::Key { name, .. } => {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.push_str(&shown(name).to_string());
                }
            }
        }
        path
    }

    /// The path without list indices: `pools[].backends[].weight`.
    pub(crate) fn section(&self, id: NodeId) -> String {
        let mut section = String::new();
        let mut inside = false;
        for c in self.path(id).chars() {
            inside &= c != ']';
            if !inside {
                section.push(c);
            }
            inside |= c == '[';
        }
        section
    }

    /// The list or mapping that a value is in.
    pub(crate) fn parent(&self, id: NodeId) -> Option<NodeId> {
        self.node(id).parent
    }

    /// Whether a value is a scalar without one, which is reported.
    pub(crate) fn is_faulty(&self, id: NodeId) -> bool {
        self.faulty.contains(&id)
    }

    /// A scalar's meaning; `None` for lists and mappings.
    pub(crate) fn resolve(&self, id: NodeId) -> Option<Resolved<'_>> {
        match self.value(id) {
            NodeValue::Scalar { text, plain: true, .. } => Some(resolve_plain(text)),
            NodeValue::Scalar { text, .. } => Some(Resolved::Text(text)),
            NodeValue::List(_) | NodeValue::Map(_) => None,
        }
    }

    /// Whether a value is null: `null`, `~` or nothing at all.
    pub(crate) fn is_null(&self, id: NodeId) -> bool {
        self.resolve(id) == Some(Resolved::Null)
    }

    /// The text of a scalar that is text: one in quotes is, also if its variables make it look like a number.
    pub(crate) fn quoted(&self, id: NodeId) -> Option<&str> {
        match self.value(id) {
            NodeValue::Scalar { text, plain, written, .. } => {
                (!written.as_ref().map_or(*plain, |written| written.plain)).then_some(text)
            }
            NodeValue::List(_) | NodeValue::Map(_) => None,
        }
    }

    /// A scalar as it is in the file, with its variables, if it has any.
    pub(crate) fn written(&self, id: NodeId) -> Option<&WrittenScalar> {
        match self.value(id) {
            NodeValue::Scalar { written, .. } => written.as_deref(),
            NodeValue::List(_) | NodeValue::Map(_) => None,
        }
    }

    /// A diagnostic about a value: at its place, with its path before the message and its variables behind it.
    pub(crate) fn located(&self, id: NodeId, diagnostic: Diagnostic) -> Diagnostic {
        let mut located = diagnostic.at(self.span(id));
        let path = self.path(id);
        if !path.is_empty() {
            located.message = format!("{path}: {}", located.message);
        }
        match self.written(id) {
            Some(WrittenScalar { variables, .. }) if !variables.is_empty() => {
                located.message.push_str(&format!(" (from {variables})"));
            }
            _ => {}
        }
        located
    }

    /// A scalar without quotes, its variables replaced.
    pub(crate) fn text(&self, id: NodeId) -> Option<&str> {
        match self.value(id) {
            NodeValue::Scalar { text, .. } => Some(text),
            NodeValue::List(_) | NodeValue::Map(_) => None,
        }
    }

    /// Every plain scalar, as it is written.
    #[cfg(test)]
    pub(crate) fn plain(&self) -> impl Iterator<Item = &str> {
        self.nodes.iter().filter_map(|node| match &node.value {
            NodeValue::Scalar { text, plain: true, .. } => Some(&**text),
            _ => None,
        })
    }

    /// A scalar as bytes: `\xNN` in double quotes is one byte, all else is UTF-8.
    pub(crate) fn bytes(&self, id: NodeId) -> Option<&[u8]> {
        match self.value(id) {
            NodeValue::Scalar { bytes: Some(bytes), .. } => Some(bytes),
            _ => self.text(id).map(str::as_bytes),
        }
    }

    /// Every place that much further.
    pub(super) fn move_by(&mut self, distance: usize) {
        let further = |span: &mut Range<usize>| *span = span.start + distance..span.end + distance;
        for node in &mut self.nodes {
            further(&mut node.span);
            if let PathStep::Key { span, .. } = &mut node.step {
                further(span);
            }
        }
    }

    pub(super) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    pub(super) fn add(&mut self, node: Node) -> NodeId {
        // MAX_NODES keeps this far from truncation.
        let id = NodeId(self.nodes.len() as u32);
        self.nodes.push(node);
        id
    }
}

pub(super) fn resolve_plain(text: &str) -> Resolved<'_> {
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

/// Saturates at an i64, which is out of every range; messages show the number as written.
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
