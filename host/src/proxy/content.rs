//! What content may a response have, and how long does it say that it is?
//!
//! Asked once, when nothing changes the response any more: plugins have given it a status, the cache a content, and
//! the client's method says whether there is to be one at all (RFC 9110, section 6.4.1).

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body::Body as _;

use super::sent::Sent;
use crate::body::Content;

/// Takes away what the response cannot have. Returns how long its content has to be, if the head says so.
///
/// What an upstream still sends of a content that does not go on is not read.
pub(super) fn settle(
    response: &mut Response<Content>,
    is_head: bool,
    sent: &mut Option<Sent>,
) -> Option<u64> {
    let has_content = !response.body().is_end_stream();
    let status = response.status();
    match status {
        // Sections 8.6 and 15.3.6.
        StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT => {
            drop_content(response, sent);
            response.headers_mut().remove(header::CONTENT_LENGTH);
            None
        }
        StatusCode::NOT_MODIFIED => {
            if has_content {
                // It was another response before it became this one, and what it says is of that.
                drop_content(response, sent);
                response.headers_mut().remove(header::CONTENT_LENGTH);
            }
            None
        }
        _ if is_head => {
            if has_content {
                // Section 9.3.2: the headers are those of the response to GET.
                let length = response.body().size_hint().exact();
                drop_content(response, sent);
                let headers = response.headers_mut();
                if let Some(length) = length
                    && !headers.contains_key(header::CONTENT_LENGTH)
                {
                    let _ = headers.try_insert(header::CONTENT_LENGTH, HeaderValue::from(length));
                }
            }
            None
        }
        _ => {
            let length = response.headers().get(header::CONTENT_LENGTH)?;
            length.to_str().ok()?.parse().ok()
        }
    }
}

fn drop_content(response: &mut Response<Content>, sent: &mut Option<Sent>) {
    if response.body().is_end_stream() {
        return;
    }
    *response.body_mut() = Content::Whole(Bytes::new());
    if let Some(sent) = sent {
        sent.give_up_response();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_has_the_content_that_its_status_and_method_allow() {
        for (status, is_head, length, content, expected) in [
            (200, false, Some("2"), "ok", (Some("2"), "ok", Some(2))),
            (200, false, None, "ok", (None, "ok", None)),
            (200, false, Some("9"), "ok", (Some("9"), "ok", Some(9))),
            (204, false, Some("2"), "ok", (None, "", None)),
            (204, false, Some("0"), "", (None, "", None)),
            (205, false, Some("2"), "ok", (None, "", None)),
            (304, false, Some("2"), "ok", (None, "", None)),
            (304, false, Some("2"), "", (Some("2"), "", None)),
            (200, true, Some("2"), "", (Some("2"), "", None)),
            (404, true, None, "gone", (Some("4"), "", None)),
            (404, true, Some("9"), "gone", (Some("9"), "", None)),
            (204, true, Some("2"), "ok", (None, "", None)),
        ] {
            let mut response = Response::new(Content::Whole(Bytes::from(content)));
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            if let Some(length) = length {
                response.headers_mut().insert(header::CONTENT_LENGTH, length.parse().unwrap());
            }
            let declared = settle(&mut response, is_head, &mut None);
            let said = response.headers().get(header::CONTENT_LENGTH).map(|length| length.to_str().unwrap());
            let Content::Whole(left) = response.body() else { panic!("it was whole") };
            assert_eq!(
                (said, &left[..], declared),
                (expected.0, expected.1.as_bytes(), expected.2),
                "{status} {content:?}"
            );
        }
    }
}
