//! What changes a running process: requests, and the model of what they change. Pure but for the state file; the
//! [`app`](crate::app) carries requests out, one after the other.
//!
//! Every request ends in a whole configuration, which is applied as a reload is: the configuration of the file, with the
//! [`Overlay`] of what was changed at run time.

pub mod audit;
mod difference;
pub mod edit;
pub mod outcome;
mod overlay;
pub mod predecessor;
pub mod request;
pub mod state_file;
pub mod status;

pub use self::difference::differences;
pub use self::overlay::{Overlay, ResetScope};
