//! temp
use crate::pool::Pool;
use std::sync::Arc;
/// temp
pub struct Checks;
/// temp
pub fn spawn(_: Arc<Pool>) -> Option<Checks> {
    None
}
/// temp
pub async fn first_verdicts(_: &mut [Checks]) {}
