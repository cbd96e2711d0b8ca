//! The JSON of plain balancers, for what reads those: `/lb/status`, `/lb-metrics` and `/api/`.

pub(super) mod api;
mod health;
pub(super) mod lb;
mod requests;
