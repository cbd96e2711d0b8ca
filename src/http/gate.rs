//! stub
use std::fmt;
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    HeadTooLong,
}
impl Violation {
    pub fn status(self) -> u16 {
        431
    }
}
impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("stub")
    }
}
pub struct Refused {
    pub passes: usize,
    pub why: Violation,
}
pub struct RequestGate {
    n: u64,
}
impl RequestGate {
    pub fn new(_: u32) -> RequestGate {
        RequestGate { n: 0 }
    }
    pub fn take(&mut self, _: &[u8]) -> Result<(), Refused> {
        self.n += 1;
        Ok(())
    }
    pub fn is_between_requests(&self) -> bool {
        true
    }
    pub fn is_in_head(&self) -> bool {
        false
    }
    pub fn heads(&self) -> u64 {
        self.n
    }
}
