//! Whatever stands in `Range` and `If-Range`, a part of a stored response is within it and is not empty.

#![no_main]

use http::{HeaderMap, HeaderValue, StatusCode, header};
use libfuzzer_sys::fuzz_target;
use tollgate::cache::policy::{Ranged, Time, requested_range};

/// Ranges, `If-Range`, the stored `ETag` and `Last-Modified`, the length of what is stored, and the time.
type Input<'a> = (Vec<&'a [u8]>, Option<&'a [u8]>, Option<&'a [u8]>, Option<&'a [u8]>, u64, u64);

fuzz_target!(|input: Input<'_>| {
    let (ranges, if_range, tag, modified, length, now) = input;
    let mut request = HeaderMap::new();
    for range in ranges {
        if let Ok(value) = HeaderValue::from_bytes(&[b"bytes=", range].concat()) {
            request.append(header::RANGE, value);
        }
        if let Ok(value) = HeaderValue::from_bytes(range) {
            request.append(header::RANGE, value);
        }
    }
    let mut stored = HeaderMap::new();
    stored.insert(header::DATE, HeaderValue::from_static("Sun, 06 Nov 1994 08:49:37 GMT"));
    let fields = [(&mut request, header::IF_RANGE, if_range)];
    for (headers, name, value) in fields {
        if let Some(value) = value.and_then(|value| HeaderValue::from_bytes(value).ok()) {
            headers.insert(name, value);
        }
    }
    for (name, value) in [(header::ETAG, tag), (header::LAST_MODIFIED, modified)] {
        if let Some(value) = value.and_then(|value| HeaderValue::from_bytes(value).ok()) {
            stored.insert(name, value);
        }
    }
    for status in [StatusCode::OK, StatusCode::NOT_FOUND] {
        match requested_range(&request, status, &stored, length, Time(now)) {
            Ranged::Whole => {}
            Ranged::Part(first, end) => {
                assert!(status == StatusCode::OK, "a part of {status}: {request:?}");
                assert!(first < end && end <= length, "{first}..{end} of {length}: {request:?}");
                if let Some(condition) = request.get(header::IF_RANGE) {
                    assert!(!condition.as_bytes().starts_with(b"W/"), "a weak tag: {request:?}");
                }
            }
            Ranged::Unsatisfiable => assert!(request.contains_key(header::RANGE), "{request:?}"),
        }
    }
});
