//! YAML text as a tree in which every key and value knows its place.

mod build;
mod bytes;
mod node;

pub(crate) use build::parse;
pub(crate) use node::{NodeId, NodeValue, Resolved, Tree};

#[cfg(test)]
mod tests;
