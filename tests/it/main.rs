//! The integration tests: one binary, a file a feature.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a helper of a test fails by panicking, as the test does")]

mod architecture;
mod compare;
mod config;
