//! SCRAM-SHA-256 (RFC 5802, RFC 7677), the client's side, without channel binding. Pure: the nonce comes in.
//!
//! Passwords are sent as they are, without SASLprep (RFC 4013), which changes no password of ASCII.

#![forbid(unsafe_code)]

use std::num::NonZeroU32;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::{digest, hmac, pbkdf2};
use base64ct::{Base64, Encoding};

/// Iterations that a server may ask for. PostgreSQL's default is 4096; each 100,000 take about 30 ms.
const MAX_ITERATIONS: u32 = 200_000;

/// Name of the mechanism (RFC 7677).
pub(super) const MECHANISM: &str = "SCRAM-SHA-256";

/// `n,,` in base64: no channel binding.
const NO_CHANNEL_BINDING: &str = "biws";

/// A derived key, kept between checks: its derivation is what costs.
#[derive(Clone, Default)]
pub(super) struct DerivedKey {
    password: Vec<u8>,
    salt: Vec<u8>,
    /// 0 before the first derivation.
    iterations: u32,
    key: [u8; 32],
}

/// Why an exchange failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ScramFault {
    /// A message of the server cannot be parsed, or breaks the protocol.
    Malformed,
    /// More iterations than [`MAX_ITERATIONS`].
    Iterations(u32),
    /// The server's signature is wrong: it does not know the password.
    Signature,
}

/// One authentication.
pub(super) struct Scram {
    first_bare: String,
    nonce: String,
    /// Known after the server's first message.
    server_signature: Option<[u8; 32]>,
}

impl Scram {
    /// `nonce` is random, printable ASCII without a comma. PostgreSQL takes the user from its own startup message.
    pub(super) fn new(nonce: String) -> Scram {
        Scram { first_bare: format!("n=,r={nonce}"), nonce, server_signature: None }
    }

    /// The client-first-message.
    pub(super) fn first(&self) -> Vec<u8> {
        format!("n,,{}", self.first_bare).into_bytes()
    }

    /// The client-final-message that answers the server's first one.
    pub(super) fn last(
        &mut self,
        server_first: &[u8],
        password: &[u8],
        cache: &mut DerivedKey,
    ) -> Result<Vec<u8>, ScramFault> {
        let text = std::str::from_utf8(server_first).map_err(|_| ScramFault::Malformed)?;
        let mut attributes = text.split(',');
        let mut next = |name: &str| attributes.next().and_then(|it| it.strip_prefix(name)).ok_or(ScramFault::Malformed);
        let (nonce, salt, iterations) = (next("r=")?, next("s=")?, next("i=")?);
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err(ScramFault::Malformed);
        }
        let salt = Base64::decode_vec(salt).map_err(|_| ScramFault::Malformed)?;
        let iterations: u32 = iterations.parse().map_err(|_| ScramFault::Malformed)?;
        if iterations > MAX_ITERATIONS {
            return Err(ScramFault::Iterations(iterations));
        }
        let iterations = NonZeroU32::new(iterations).ok_or(ScramFault::Malformed)?;
        let salted = cache.derive(password, &salt, iterations);
        let without_proof = format!("c={NO_CHANNEL_BINDING},r={nonce}");
        let signed = format!("{},{text},{without_proof}", self.first_bare);
        let client_key = mac(&salted, b"Client Key");
        let stored_key = digest::digest(&digest::SHA256, &client_key);
        let signature = mac(stored_key.as_ref(), signed.as_bytes());
        let proof: Vec<u8> = client_key.iter().zip(signature).map(|(key, signature)| key ^ signature).collect();
        self.server_signature = Some(mac(&mac(&salted, b"Server Key"), signed.as_bytes()));
        Ok(format!("{without_proof},p={}", Base64::encode_string(&proof)).into_bytes())
    }

    /// Verifies the server-final-message: the server knows the password too.
    pub(super) fn verify(&self, server_last: &[u8]) -> Result<(), ScramFault> {
        let expected = self.server_signature.as_ref().ok_or(ScramFault::Malformed)?;
        let text = std::str::from_utf8(server_last).map_err(|_| ScramFault::Malformed)?;
        let given = text.split(',').next().and_then(|it| it.strip_prefix("v=")).ok_or(ScramFault::Malformed)?;
        let given = Base64::decode_vec(given).map_err(|_| ScramFault::Malformed)?;
        verify_slices_are_equal(&given, expected).map_err(|_| ScramFault::Signature)
    }
}

impl DerivedKey {
    fn derive(&mut self, password: &[u8], salt: &[u8], iterations: NonZeroU32) -> [u8; 32] {
        if self.password != password || self.salt != salt || self.iterations != iterations.get() {
            pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, password, &mut self.key);
            (self.password, self.salt) = (password.to_vec(), salt.to_vec());
            self.iterations = iterations.get();
        }
        self.key
    }
}

fn mac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message);
    let mut bytes = [0; 32];
    bytes.iter_mut().zip(tag.as_ref()).for_each(|(to, from)| *to = *from);
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
    const SERVER_FIRST: &[u8] =
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";

    /// RFC 7677, 3, whose client names its user in the first message.
    #[test]
    fn example_of_the_rfc() {
        let mut scram = Scram::new(NONCE.to_owned());
        scram.first_bare = format!("n=user,r={NONCE}");
        let mut cache = DerivedKey::default();
        let expected = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                        p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        for _ in ["derived", "from the cache"] {
            let last = scram.last(SERVER_FIRST, b"pencil", &mut cache).unwrap();
            assert_eq!(String::from_utf8(last).unwrap(), expected);
            assert_eq!(scram.verify(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="), Ok(()));
        }
        assert_eq!(
            scram.verify(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G5="),
            Err(ScramFault::Malformed),
            "trailing bits"
        );
        assert_eq!(scram.verify(b"v=7rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="), Err(ScramFault::Signature));
        let other = scram.last(SERVER_FIRST, b"pencil2", &mut cache).unwrap();
        assert_ne!(String::from_utf8(other).unwrap(), expected, "another password has another key");
    }

    #[test]
    fn server_that_breaks_the_protocol_is_refused() {
        for (first, fault) in [
            (&b"r=other,s=QQ==,i=4096"[..], ScramFault::Malformed),
            (b"r=rOprNGfwEbeRWgbNEkqO,s=QQ==,i=4096", ScramFault::Malformed),
            (b"r=rOprNGfwEbeRWgbNEkqOx,s=?,i=4096", ScramFault::Malformed),
            (b"r=rOprNGfwEbeRWgbNEkqOx,s=QQ==,i=0", ScramFault::Malformed),
            (b"r=rOprNGfwEbeRWgbNEkqOx,i=4096,s=QQ==", ScramFault::Malformed),
            (b"r=rOprNGfwEbeRWgbNEkqOx,s=QQ==,i=4000000000", ScramFault::Iterations(4_000_000_000)),
            (b"\xff", ScramFault::Malformed),
        ] {
            let mut scram = Scram::new(NONCE.to_owned());
            assert_eq!(scram.last(first, b"pencil", &mut DerivedKey::default()), Err(fault), "{first:?}");
            assert_eq!(scram.verify(b"v="), Err(ScramFault::Malformed));
        }
    }

    proptest! {
        #[test]
        fn arbitrary_messages_never_panic(first: Vec<u8>, last: Vec<u8>, tail in "[a-zA-Z0-9,=+/]{0,40}") {
            let mut scram = Scram::new(NONCE.to_owned());
            let _ = scram.last(&first, b"x", &mut DerivedKey::default());
            let _ = scram.last(format!("r={NONCE}{tail}").as_bytes(), b"x", &mut DerivedKey::default());
            let _ = scram.verify(&last);
        }
    }
}
