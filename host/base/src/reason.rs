//! Which words go with a status?
//!
//! Those of RFC 9110, section 15: the crate `http` has older ones for two. A status line and the title of a problem document
//! (RFC 9457, section 4.2.1) say the same.

use http::{Response, StatusCode};
use hyper::ext::ReasonPhrase;

const CONTENT_TOO_LARGE: &str = "Content Too Large";
const UNPROCESSABLE_CONTENT: &str = "Unprocessable Content";

/// The words for a status; empty for one that is not registered.
pub fn reason(status: StatusCode) -> &'static str {
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => CONTENT_TOO_LARGE,
        StatusCode::UNPROCESSABLE_ENTITY => UNPROCESSABLE_CONTENT,
        other => other.canonical_reason().unwrap_or_default(),
    }
}

/// Has the status line of a response of the proxy's own say these words. Costs something for two statuses alone.
pub fn put_reason<B>(response: &mut Response<B>) {
    let words = match response.status() {
        StatusCode::PAYLOAD_TOO_LARGE => CONTENT_TOO_LARGE,
        StatusCode::UNPROCESSABLE_ENTITY => UNPROCESSABLE_CONTENT,
        _ => return,
    };
    response.extensions_mut().insert(ReasonPhrase::from_static(words.as_bytes()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_has_one_name_wherever_it_stands() {
        for (status, words) in [
            (200, "OK"),
            (413, "Content Too Large"),
            (414, "URI Too Long"),
            (422, "Unprocessable Content"),
            (599, ""),
        ] {
            let mut response = Response::new(());
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            assert_eq!(reason(response.status()), words);
            put_reason(&mut response);
            let put = response.extensions().get::<ReasonPhrase>().map(ReasonPhrase::as_bytes);
            // What hyper says where it is told nothing.
            let said = put.unwrap_or(response.status().canonical_reason().unwrap_or_default().as_bytes());
            assert_eq!(said, words.as_bytes(), "{status}");
        }
    }
}
