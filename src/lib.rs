//! tidegate: a Layer-4 load balancer. (The map of the code goes here.)

#![warn(missing_docs)]

pub mod balance;
pub mod config;
pub mod health;
pub mod net;
pub mod pool;
