//! Whatever the fields for caches hold is read, and nothing that is said besides takes back `no-store`.

#![no_main]

use http::{HeaderMap, HeaderName, HeaderValue, header};
use libfuzzer_sys::fuzz_target;
use tollgate::cache::policy::{RequestDirectives, ResponseDirectives};

const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");

fuzz_target!(|values: Vec<(bool, &[u8])>| {
    let mut headers = HeaderMap::new();
    for (is_targeted, value) in values {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.append(if is_targeted { CDN_CACHE_CONTROL } else { header::CACHE_CONTROL }, value);
        }
    }
    let is_targeted = ResponseDirectives::of(&headers).is_targeted;
    headers.append(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    assert!(RequestDirectives::of(&headers).no_store, "{headers:?}");
    assert_eq!(ResponseDirectives::of(&headers).is_targeted, is_targeted, "{headers:?}");
    assert!(is_targeted || ResponseDirectives::of(&headers).no_store, "{headers:?}");
});
