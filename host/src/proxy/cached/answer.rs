//! What does a client get of what is stored?

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};

use super::{CacheLookup, set};
use crate::{
    body::Content,
    cache::{
        fill::Coming,
        policy::{self, Ranged, Time},
        status::{self, Served},
        stored::Stored,
    },
    proxy::observer::Observer,
};

impl CacheLookup {
    /// What a client gets of a stored response: all of it, a part, or the word that it has it already.
    pub(super) fn answer(
        &self,
        request: &HeaderMap,
        stored: &Stored,
        served: Served,
        observer: &mut Observer,
    ) -> Response<Content> {
        let now = Time::now();
        self.report(served, observer);
        let length = stored.body.len();
        let mut response = Response::new(Content::Whole(bytes::Bytes::new()));
        let is_conditional = self.method != Method::POST;
        if is_conditional && policy::is_not_modified(request, stored.status, &stored.headers, now) {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            *response.headers_mut() = policy::not_modified_headers(&stored.headers);
        } else {
            *response.status_mut() = stored.status;
            *response.headers_mut() = stored.headers.clone();
            let ranged = match self.method {
                Method::HEAD | Method::POST => Ranged::Whole,
                _ => policy::requested_range(request, stored.status, &stored.headers, length, now),
            };
            let stated = match ranged {
                Ranged::Whole if self.method == Method::HEAD => {
                    (!stored.headers.contains_key(header::CONTENT_LENGTH)
                        && stored.status != StatusCode::NO_CONTENT)
                        .then_some(length)
                }
                Ranged::Whole => {
                    *response.body_mut() = stored.body.content();
                    None
                }
                Ranged::Part(from, to) => {
                    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                    *response.body_mut() = stored.body.part(from, to);
                    let range = format!("bytes {from}-{}/{length}", to - 1);
                    set(response.headers_mut(), header::CONTENT_RANGE, &range);
                    Some(to - from)
                }
                Ranged::Unsatisfiable => {
                    *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
                    set(response.headers_mut(), header::CONTENT_RANGE, &format!("bytes */{length}"));
                    Some(0)
                }
            };
            if let Some(stated) = stated {
                response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(stated));
            }
        }
        status::set_age(response.headers_mut(), &stored.freshness, now);
        status::tell(response.headers_mut(), served, Some(&stored.freshness), now);
        response
    }

    /// What another request fetches, while it comes.
    pub(super) fn read_along(&self, coming: &Coming, observer: &mut Observer) -> Response<Content> {
        self.report(Served::Collapsed, observer);
        let content = Content::Changed(Box::new(coming.stream.reader(Some(coming.length))));
        let mut response = Response::new(content);
        *response.status_mut() = coming.status;
        *response.headers_mut() = coming.headers.clone();
        status::tell(response.headers_mut(), Served::Collapsed, None, Time::now());
        response
    }
}
