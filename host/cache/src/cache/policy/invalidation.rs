//! What does a request make out of date?
//!
//! RFC 9111, section 4.4.

use http::{HeaderMap, HeaderName, Method, StatusCode, Uri, header};

use crate::path;

/// Whether the answer to a request means that what is stored for its target may no longer hold. Methods that are
/// not known may do anything.
pub fn invalidates(method: &Method, status: StatusCode) -> bool {
    !method.is_safe() && (status.is_success() || status.is_redirection())
}

/// The target that a field of the response names, if it is of the same origin as the request's. In canonical
/// form.
pub fn same_origin_target(
    field: &HeaderName,
    response: &HeaderMap,
    scheme: &str,
    authority: &str,
    base: &Uri,
) -> Option<String> {
    debug_assert!(*field == header::LOCATION || *field == header::CONTENT_LOCATION);
    let reference = response.get(field)?.to_str().ok()?.trim();
    let reference = reference.split('#').next().unwrap_or_default();
    let target = if let Some(rest) = reference.strip_prefix("//") {
        of_authority(rest, authority)?
    } else if let Some((found, rest)) = reference.split_once("://").filter(|(found, _)| is_scheme(found)) {
        if !found.eq_ignore_ascii_case(scheme) {
            return None;
        }
        of_authority(rest, authority)?
    } else if reference.starts_with('/') {
        reference.to_owned()
    } else if reference.is_empty() || reference.starts_with('?') {
        let query = if reference.is_empty() { base.query().map(|query| format!("?{query}")) } else { None };
        format!("{}{}", base.path(), query.as_deref().unwrap_or(reference))
    } else {
        let folder = base.path().rfind('/').map_or("/", |slash| &base.path()[..=slash]);
        format!("{folder}{reference}")
    };
    let (path, query) = target.split_once('?').map_or((&*target, None), |(path, query)| (path, Some(query)));
    let path = path::canonical(if path.is_empty() { "/" } else { path }).ok()?;
    Some(match query {
        Some(query) => format!("{path}?{query}"),
        None => path.into_owned(),
    })
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

fn of_authority(rest: &str, authority: &str) -> Option<String> {
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (found, target) = rest.split_at(end);
    found.eq_ignore_ascii_case(authority).then(|| match target.starts_with('/') {
        true => target.to_owned(),
        false => format!("/{target}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_something_invalidates_unless_it_failed() {
        for (method, status, expected) in [
            ("POST", 200, true),
            ("PUT", 201, true),
            ("DELETE", 204, true),
            ("M-SEARCH", 200, true),
            ("POST", 303, true),
            ("POST", 404, false),
            ("PUT", 500, false),
            ("GET", 200, false),
            ("HEAD", 200, false),
            ("OPTIONS", 200, false),
            ("TRACE", 200, false),
        ] {
            let (method, status) = (method.parse().unwrap(), StatusCode::from_u16(status).unwrap());
            assert_eq!(invalidates(&method, status), expected, "{method} {status}");
        }
    }

    #[test]
    fn only_the_same_origin_is_heard() {
        let base: Uri = "/a/b?q=1".parse().unwrap();
        for (reference, expected) in [
            ("/x", Some("/x")),
            ("/x?y=1", Some("/x?y=1")),
            ("/x/../y//z#f", Some("/y/z")),
            ("c", Some("/a/c")),
            ("../c", Some("/c")),
            ("?z", Some("/a/b?z")),
            ("", Some("/a/b?q=1")),
            ("http://h:1/x", Some("/x")),
            ("HTTP://H:1", Some("/")),
            ("http://h:1?q", Some("/?q")),
            ("//h:1/x", Some("/x")),
            ("https://h:1/x", None),
            ("http://h/x", None),
            ("http://evil/x", None),
            ("//evil/x", None),
            ("mailto://x", None),
            ("/../..", None),
            ("/a%2fb", None),
        ] {
            let response = HeaderMap::from_iter([(header::LOCATION, reference.parse().unwrap())]);
            let found = same_origin_target(&header::LOCATION, &response, "http", "h:1", &base);
            assert_eq!(found.as_deref(), expected, "{reference}");
        }
    }
}
