//! Which parameters has a query?

/// Names and values, in order, decoded as browsers encode forms (application/x-www-form-urlencoded of the URL standard).
/// What is no UTF-8 becomes U+FFFD.
pub(crate) fn parameters(query: &str) -> Vec<(String, String)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        })
        .collect()
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, behind @ ..] = rest {
        rest = behind;
        bytes.push(match first {
            b'+' => b' ',
            b'%' => match octet(behind) {
                Some(byte) => {
                    rest = &behind[2..];
                    byte
                }
                None => b'%',
            },
            other => *other,
        });
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn octet(text: &[u8]) -> Option<u8> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(text.first()?)? << 4 | digit(text.get(1)?)?)
}

#[cfg(test)]
mod tests {
    use super::parameters;

    #[test]
    fn a_query_is_read_as_forms_are_written() {
        for (query, expected) in [
            ("", &[][..]),
            ("&&", &[]),
            ("a", &[("a", "")]),
            ("a=1&b=2=3&a=", &[("a", "1"), ("b", "2=3"), ("a", "")]),
            ("a%3Db=c+d%20e%C3%a9", &[("a=b", "c d eé")]),
            ("%=%4&%zz=%ff", &[("%", "%4"), ("%zz", "\u{fffd}")]),
        ] {
            let found = parameters(query);
            let found: Vec<_> = found.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            assert_eq!(found, expected, "{query}");
        }
    }
}
