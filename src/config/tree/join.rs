//! Joining the trees of several files: lists of the top are one list, all else is in one file only.

use std::collections::HashMap;

use super::node::{Node, NodeId, NodeValue, Tree};
use crate::config::report::Diagnostic;

/// Lists to which every file may add.
const LISTS: [&str; 2] = ["listeners", "pools"];

/// Beginning of keys at the top that are ignored.
const EXTENSION: &str = "x-";

impl Tree {
    /// Drops the keys at the top that are ignored: a place for anchors.
    pub(crate) fn drop_extensions(&mut self) {
        let Some(root) = self.root else { return };
        let kept: Vec<NodeId> = self.children(root).iter().copied().filter(|it| !self.is_extension(*it)).collect();
        if let NodeValue::Map(children) = &mut self.nodes[root.0 as usize].value {
            *children = kept;
        }
    }

    /// Adds the sections of another file. Returns what is wrong with them.
    ///
    /// What was in the other file keeps its path there: `listeners[0]` is the first of its file.
    pub(crate) fn join(&mut self, other: Tree) -> Vec<Diagnostic> {
        let offset = self.nodes.len() as u32;
        let moved = |id: NodeId| NodeId(id.0 + offset);
        let other_root = other.root.map(moved);
        for Node { parent, step, span, value } in other.nodes {
            let value = match value {
                NodeValue::List(children) => NodeValue::List(children.into_iter().map(moved).collect()),
                NodeValue::Map(children) => NodeValue::Map(children.into_iter().map(moved).collect()),
                scalar @ NodeValue::Scalar { .. } => scalar,
            };
            self.nodes.push(Node { parent: parent.map(moved), step, span, value });
        }
        self.faulty.extend(other.faulty.into_iter().map(moved));
        let (Some(root), Some(other_root)) = (self.root, other_root) else { return Vec::new() };
        let mut diagnostics = Vec::new();
        if !matches!(self.value(other_root), NodeValue::Map(_)) && !self.is_null(other_root) {
            let diagnostic = Diagnostic::new("expected a mapping with listeners, pools or other sections");
            diagnostics.push(diagnostic.at(self.span(other_root)));
        }
        let mut sections: HashMap<String, NodeId> = HashMap::new();
        for child in self.children(root) {
            sections.extend(self.key(*child).map(|key| (key.to_owned(), *child)));
        }
        for child in self.children(other_root).to_vec() {
            let key = self.key(child).unwrap_or_default();
            match sections.get(key).copied() {
                None => self.add_section(root, child, None),
                // A section without content is absent.
                Some(first) if self.is_null(first) => self.add_section(root, child, Some(first)),
                Some(_) if self.is_null(child) => {}
                Some(first) if LISTS.contains(&key) => diagnostics.extend(self.add_elements(first, child)),
                Some(first) => {
                    let diagnostic = Diagnostic::new(format!("`{key}` is in two files"))
                        .hint("listeners and pools may be in every file, any other section in one");
                    let diagnostic = diagnostic.at(self.key_span(child));
                    diagnostics.push(diagnostic.related(self.key_span(first), "first here"));
                }
            }
        }
        diagnostics
    }

    /// The entries of a mapping.
    pub(crate) fn children(&self, map: NodeId) -> &[NodeId] {
        match self.value(map) {
            NodeValue::Map(children) => children,
            NodeValue::List(_) | NodeValue::Scalar { .. } => &[],
        }
    }

    /// Takes an entry out of the mapping at the top.
    pub(crate) fn remove_section(&mut self, section: NodeId) {
        let Some(root) = self.root else { return };
        if let NodeValue::Map(children) = &mut self.nodes[root.0 as usize].value {
            children.retain(|child| *child != section);
        }
    }

    fn is_extension(&self, id: NodeId) -> bool {
        self.key(id).is_some_and(|key| key.starts_with(EXTENSION))
    }

    /// Adds a section, in the place of an empty one if there is that.
    fn add_section(&mut self, root: NodeId, section: NodeId, instead: Option<NodeId>) {
        let NodeValue::Map(children) = &mut self.nodes[root.0 as usize].value else { return };
        children.retain(|child| Some(*child) != instead);
        children.push(section);
    }

    /// Adds the elements of a list to another.
    fn add_elements(&mut self, to: NodeId, from: NodeId) -> Option<Diagnostic> {
        let NodeValue::List(elements) = self.value(from) else {
            let path = self.path(from);
            return Some(Diagnostic::new(format!("{path}: expected a list")).at(self.span(from)));
        };
        let elements = elements.clone();
        // Of another kind, it is reported when it is read.
        if let NodeValue::List(all) = &mut self.nodes[to.0 as usize].value {
            all.extend(elements);
        }
        None
    }
}
