//! What a client of MySQL or MariaDB reads that is refused.

#![forbid(unsafe_code)]

/// An ERR packet instead of the server's greeting (MySQL's "ERR_Packet"; MariaDB's "ERR_Packet"). `code` is an error number of
/// the server, `state` its SQLSTATE.
pub fn refusal(code: u16, state: &[u8; 5], message: &str) -> Vec<u8> {
    // Of a length that one packet holds many times over.
    let message = message.get(..MAX_MESSAGE).unwrap_or(message);
    let payload = [&[0xff], &code.to_le_bytes()[..], b"#", state, message.as_bytes()].concat();
    let [low, middle, high, _] = (payload.len() as u32).to_le_bytes();
    [&[low, middle, high, 0], payload.as_slice()].concat()
}

/// Bytes of the longest message that clients keep (MYSQL_ERRMSG_SIZE).
const MAX_MESSAGE: usize = 511;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusal_is_a_packet_with_number_state_and_message() {
        let packet = refusal(1040, b"08004", "Too many connections");
        assert_eq!(packet, b"\x1d\x00\x00\x00\xff\x10\x04#08004Too many connections");
        let long = refusal(1105, b"HY000", &"a".repeat(1000));
        assert_eq!((long[0], long[1], long.len()), (0x08, 0x02, 4 + 9 + 511));
    }
}
