//! Black-box tests: the binary, real sockets. One file a feature.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail their test")]

mod demo;
