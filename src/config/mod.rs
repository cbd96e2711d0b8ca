//! Configuration.
pub mod model;
