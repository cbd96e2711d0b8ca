//! tidegate: a Layer-4 load balancer. (The map of the code goes here.)

#![warn(missing_docs)]

pub mod app;
pub mod balance;
pub mod config;
pub mod health;
pub mod log;
pub mod net;
pub mod pool;
pub mod relay;
pub mod server;
pub mod stats;
pub mod worker;
