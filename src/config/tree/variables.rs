//! Variables of the environment in the scalars of a tree.

use std::collections::HashSet;

use super::node::{NodeId, NodeValue, Tree, WrittenScalar};
use crate::config::expand::{self, Expanded, Variable};
use crate::config::report::Diagnostic;

/// Replaces variables in trees.
pub(crate) struct Expansion<'e> {
    variable: &'e dyn Fn(&str) -> Variable,
    /// Bytes that may still come of variables: a few lines could otherwise exhaust memory.
    left: usize,
}

impl<'e> Expansion<'e> {
    /// With variables of this environment, which grow the configuration by `limit` bytes at most.
    pub(crate) fn new(variable: &'e dyn Fn(&str) -> Variable, limit: usize) -> Expansion<'e> {
        Expansion { variable, left: limit }
    }

    /// Bytes that may still come of variables.
    pub(crate) fn left(&self) -> usize {
        self.left
    }

    /// Replaces the variables in every scalar below the root, keys excepted. A scalar with variables is plain afterwards: a number
    /// if it looks like one. `text` is what the tree was read from, at `base` among several.
    pub(crate) fn run(&mut self, tree: &mut Tree, text: &str, base: usize) -> Vec<Diagnostic> {
        let (mut diagnostics, mut places, mut open) = (Vec::new(), HashSet::new(), Vec::from_iter(tree.root));
        while let Some(id) = open.pop() {
            match &tree.node(id).value {
                NodeValue::List(children) | NodeValue::Map(children) => open.extend(children.iter().rev()),
                NodeValue::Scalar { .. } => {
                    let fault = self.scalar(tree, id, text, base).err();
                    tree.faulty.extend(fault.is_some().then_some(id));
                    // Of several aliases of one anchor, one is enough.
                    diagnostics.extend(fault.map(|fault| *fault).filter(|it| places.insert(it.span.clone())));
                }
            }
        }
        diagnostics
    }

    fn scalar(&mut self, tree: &mut Tree, id: NodeId, source: &str, base: usize) -> Result<(), Box<Diagnostic>> {
        let span = tree.node(id).span.clone();
        let NodeValue::Scalar { text, plain, escapes, bytes, written: None } = &tree.node(id).value else {
            return Ok(());
        };
        // Nearly all.
        if !text.contains('$') {
            return Ok(());
        }
        let located = |diagnostic: Diagnostic| tree.located(id, diagnostic);
        let expanded = expand::expand(text.as_bytes(), self.variable).map_err(|fault| {
            let mut diagnostic = located(Diagnostic::new(fault.message).hint(fault.hint));
            // The reference itself, where it is written in one piece.
            let reference = text.get(fault.at).unwrap_or_default();
            let written = source.get(span.start - base..span.end - base).unwrap_or_default();
            if let Some(at) = written.find(reference) {
                let start = span.start + at;
                diagnostic = diagnostic.at(start..start + reference.len());
            }
            Box::new(diagnostic)
        })?;
        let Some(Expanded { bytes: value, names }) = expanded else { return Ok(()) };
        let variables = names.iter().map(|name| format!("${{{name}}}")).collect::<Vec<_>>().join(", ");
        self.left = self.left.checked_sub(value.len()).ok_or_else(|| {
            let hint = "a configuration with the values of its variables is at most as large as a file";
            Box::new(located(Diagnostic::new(format!("the values of {variables} are too large")).hint(hint)))
        })?;
        let Ok(value) = String::from_utf8(value) else {
            let what = Diagnostic::new(format!("{variables} of the environment is not UTF-8 text"));
            return Err(Box::new(located(what.hint("set it to text"))));
        };
        // The same references: they are ASCII, and cannot fail after those of the text.
        let expanded_bytes = match bytes {
            Some(bytes) => expand::expand(bytes, self.variable).ok().flatten().map(|it| it.bytes.into()),
            None => None,
        };
        let written = WrittenScalar { text: text.clone(), bytes: bytes.clone(), plain: *plain, variables };
        let scalar = NodeValue::Scalar {
            text: value.into(),
            plain: true,
            escapes: *escapes,
            bytes: expanded_bytes,
            written: Some(Box::new(written)),
        };
        tree.nodes[id.0 as usize].value = scalar;
        Ok(())
    }
}
