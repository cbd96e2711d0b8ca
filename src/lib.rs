//! tidegate: a Layer-4 load balancer. (The map of the code goes here.)

#![warn(missing_docs)]

pub mod balance;
pub mod config;
pub mod log;
pub mod net;
pub mod relay;
pub mod stats;
pub mod worker;
