//! YAML text as a tree in which every key and value knows its place.

mod build;
mod bytes;
mod join;
mod node;
mod values;
mod variables;

#[cfg(test)]
pub(crate) use build::parse;
pub(crate) use build::parse_at;
pub(crate) use node::{NodeId, NodeValue, Resolved, Tree};
pub(crate) use variables::Expansion;

#[cfg(test)]
mod tests;
