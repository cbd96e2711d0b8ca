//! What a client wrote into a URL, undone (RFC 3986, 2.1; for queries with the plus sign of HTML forms).

/// Percent-encoding undone; `None` when it is none, or not UTF-8.
pub(super) fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                (digit()? * 16 + digit()?) as u8
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

/// The keys and values of a query, in order; `None` when one cannot be read.
pub(super) fn pairs(query: &str) -> Option<Vec<(String, String)>> {
    let pair = |pair: &str| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        Some((decode(&key.replace('+', " "))?, decode(&value.replace('+', " "))?))
    };
    query.split('&').filter(|part| !part.is_empty()).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_encoded_is_decoded() {
        let cases = [
            ("shop%2Fa%20b", Some("shop/a b")),
            ("a+b", Some("a+b")),
            ("%c3%A9", Some("é")),
            ("%", None),
            ("%4", None),
            ("%zz", None),
            ("%ff", None),
        ];
        for (text, decoded) in cases {
            assert_eq!(decode(text).as_deref(), decoded, "{text}");
        }
    }

    #[test]
    fn a_query_is_keys_and_values() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let all = [pair("client", "::1"), pair("sni", "a b"), pair("x", ""), pair("alpn", "a=b")];
        assert_eq!(pairs("client=%3A%3A1&sni=a+b&x&&alpn=a=b").unwrap(), all);
        assert_eq!(pairs("a=%"), None);
    }
}
