//! What does `Forwarded` say (RFC 7239, section 4)?

/// What one proxy says of whoever has connected to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Element {
    /// An address, with or without port; or a name that only the proxy knows.
    pub client: Option<String>,
    pub scheme: Option<String>,
    pub host: Option<String>,
}

/// The elements, in the order in which proxies have added them. None where the field is malformed: to guess what was
/// meant would be to believe whoever had it written so.
pub(super) fn elements(field: &[u8]) -> Option<Vec<Element>> {
    let mut rest = field;
    let mut elements = vec![Element::default()];
    let mut has_pair = false;
    loop {
        rest = trim(rest);
        match rest {
            [] => break,
            [b',', after @ ..] => {
                // Empty elements of a list count for nothing (RFC 9110, section 5.6.1).
                if std::mem::take(&mut has_pair) {
                    elements.push(Element::default());
                }
                rest = after;
                continue;
            }
            [b';', after @ ..] => {
                rest = after;
                continue;
            }
            _ => {}
        }
        let (name, after) = token(rest)?;
        let (value, after) = value(after.strip_prefix(b"=")?)?;
        rest = trim(after);
        if !matches!(rest, [] | [b',' | b';', ..]) {
            return None;
        }
        has_pair = true;
        let element = elements.last_mut()?;
        let index = match name.to_ascii_lowercase().as_slice() {
            b"for" => &mut element.client,
            b"proto" => &mut element.scheme,
            b"host" => &mut element.host,
            _ => continue,
        };
        // Each may stand once in an element.
        if index.replace(value).is_some() {
            return None;
        }
    }
    if !has_pair {
        elements.pop();
    }
    Some(elements)
}

fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    bytes
}

fn token(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let length = bytes.iter().take_while(|byte| is_part(byte)).count();
    (length > 0).then(|| bytes.split_at(length))
}

/// A token, or a string in quotes. Addresses without quotes around them are taken, too, since some proxies write so.
fn value(bytes: &[u8]) -> Option<(String, &[u8])> {
    let Some(mut rest) = bytes.strip_prefix(b"\"") else {
        let length = bytes.iter().take_while(|byte| !b",; \t\"".contains(byte)).count();
        let (value, rest) = bytes.split_at(length);
        let value = std::str::from_utf8(value).ok().filter(|value| !value.is_empty())?;
        return Some((value.to_owned(), rest));
    };
    let mut value = Vec::new();
    loop {
        match rest {
            [b'"', after @ ..] => return Some((String::from_utf8(value).ok()?, after)),
            [b'\\', byte, after @ ..] | [byte, after @ ..] => {
                value.push(*byte);
                rest = after;
            }
            [] => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn element(client: &str, scheme: &str, host: &str) -> Element {
        let said = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Element { client: said(client), scheme: said(scheme), host: said(host) }
    }

    #[test]
    fn each_proxy_has_an_element() {
        for (field, expected) in [
            ("", vec![]),
            (" , ,", vec![]),
            ("for=192.0.2.60", vec![element("192.0.2.60", "", "")]),
            ("For=\"192.0.2.60:1234\"", vec![element("192.0.2.60:1234", "", "")]),
            ("for=192.0.2.60;proto=http;by=203.0.113.43", vec![element("192.0.2.60", "http", "")]),
            ("FOR=\"[2001:db8::17]:4711\"", vec![element("[2001:db8::17]:4711", "", "")]),
            ("for=[2001:db8::17]", vec![element("[2001:db8::17]", "", "")]),
            ("proto=https ; for=_hidden", vec![element("_hidden", "https", "")]),
            ("for=a, for=b;host=\"c:80\"", vec![element("a", "", ""), element("b", "", "c:80")]),
            ("for=a,,for=b", vec![element("a", "", ""), element("b", "", "")]),
            ("for=\"a, for=b\"", vec![element("a, for=b", "", "")]),
            ("for=\"a\\\"b\";", vec![element("a\"b", "", "")]),
        ] {
            assert_eq!(elements(field.as_bytes()), Some(expected), "{field}");
        }
    }

    #[test]
    fn what_is_malformed_is_not_guessed_at() {
        for field in
            ["for", "for=", "for =a", "=a", "for=\"a", "for=a b", "for=\"a\"b", "for=a;for=b", "for=a;proto"]
        {
            assert_eq!(elements(field.as_bytes()), None, "{field}");
        }
    }
}
