//! Header fields as they came.

/// The values of a field.
pub fn values<'a>(headers: &'a [(String, String)], name: &str) -> Vec<&'a str> {
    let named = headers.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
    named.map(|(_, value)| value.as_str()).collect()
}

/// The value of a field that stands once.
pub fn value<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    match values(headers, name)[..] {
        [] => None,
        [value] => Some(value),
        _ => panic!("{name} stands more than once: {headers:?}"),
    }
}
