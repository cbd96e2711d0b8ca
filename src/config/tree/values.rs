//! A tree of values that were never text: of a configuration that is in effect.

use serde_json::Value;

use super::node::{Node, NodeId, NodeValue, PathStep, Tree};

impl Tree {
    /// The tree of a text that has these values, variables replaced. Places are made up: they have the order of that text.
    pub(crate) fn of_values(root: &Value) -> Tree {
        let mut tree = Tree::default();
        tree.root = Some(tree.add_value(root, None, PathStep::Root));
        tree
    }

    fn add_value(&mut self, value: &Value, parent: Option<NodeId>, mut step: PathStep) -> NodeId {
        let place = self.nodes.len();
        let place = place..place + 1;
        if let PathStep::Key { span, .. } = &mut step {
            *span = place.clone();
        }
        let scalar = |text: &str, plain| NodeValue::Scalar {
            text: text.into(),
            plain,
            escapes: !plain,
            bytes: None,
            written: None,
        };
        let own = match value {
            Value::Null => scalar("", true),
            Value::Bool(value) => scalar(if *value { "true" } else { "false" }, true),
            Value::Number(number) => scalar(&number.to_string(), true),
            // A dollar is written twice, as a single one begins a variable.
            Value::String(text) => scalar(&text.replace("$$", "$"), false),
            Value::Array(_) => NodeValue::List(Vec::new()),
            Value::Object(_) => NodeValue::Map(Vec::new()),
        };
        let id = self.add(Node { parent, step, span: place, value: own });
        let children: Vec<NodeId> = match value {
            Value::Array(elements) => {
                let element = |(index, value)| self.add_value(value, Some(id), PathStep::Index(index));
                elements.iter().enumerate().map(element).collect()
            }
            Value::Object(pairs) => {
                let pair = |(name, value): (&String, _)| {
                    let step = PathStep::Key { name: name.as_str().into(), span: 0..0 };
                    self.add_value(value, Some(id), step)
                };
                pairs.iter().map(pair).collect()
            }
            _ => return id,
        };
        if let NodeValue::List(own) | NodeValue::Map(own) = &mut self.nodes[id.0 as usize].value {
            *own = children;
        }
        id
    }
}
