//! The checksum CRC-32C (Castagnoli; RFC 4960, appendix B). Bit by bit: headers are short and come once a connection.

#![forbid(unsafe_code)]

/// The polynomial, lowest power first.
const POLYNOMIAL: u32 = 0x82f6_3b78;

pub(super) fn crc32c<'a>(bytes: impl Iterator<Item = &'a u8>) -> u32 {
    !bytes.fold(u32::MAX, |sum, &byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| if sum & 1 == 1 { sum >> 1 ^ POLYNOMIAL } else { sum >> 1 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_rfc_3720_appendix_b4_hold() {
        assert_eq!(crc32c([0; 32].iter()), 0x8a91_36aa);
        assert_eq!(crc32c([0xff; 32].iter()), 0x62a8_ab43);
        assert_eq!(crc32c((0..32).collect::<Vec<u8>>().iter()), 0x46dd_794e);
        assert_eq!(crc32c(b"123456789".iter()), 0xe306_9283);
    }
}
