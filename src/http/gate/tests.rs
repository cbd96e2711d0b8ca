use super::*;

const MAX_HEAD: u32 = 256;

/// What a gate lets pass of the bytes in these portions, and the first violation.
fn passed(portions: &[&[u8]]) -> (usize, u64, Option<Violation>) {
    let mut gate = RequestGate::new(MAX_HEAD);
    let mut passed = 0;
    for portion in portions {
        match gate.take(portion) {
            Ok(()) => passed += portion.len(),
            Err(refused) => return (passed + refused.passes, gate.heads(), Some(refused.why)),
        }
    }
    (passed, gate.heads(), None)
}

#[test]
fn sound_requests_pass() {
    let requests = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nPOST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\r\nPUT / HTTP/1.1\r\nTransfer-Encoding: Chunked \r\n\r\n1;a=b\r\nx\r\n0\r\nA: b\r\n\r\n";
    assert_eq!(passed(&[requests]), (requests.len(), 3, None));
    for cut in 0..requests.len() {
        assert_eq!(passed(&[&requests[..cut], &requests[cut..]]), (requests.len(), 3, None), "{cut}");
    }
}

#[test]
fn a_gate_is_small() {
    assert!(size_of::<RequestGate>() <= 48);
}
