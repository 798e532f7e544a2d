//! A stored response serves the request that it was made for, and no request that differs in a field it varies on by
//! more than what means nothing.

#![no_main]

use http::{HeaderMap, HeaderName, HeaderValue, header};
use libfuzzer_sys::fuzz_target;
use tollgate::cache::policy::{Selection, Vary};

const NAMES: [HeaderName; 6] = [
    header::ACCEPT,
    header::ACCEPT_ENCODING,
    header::COOKIE,
    header::AUTHORIZATION,
    header::ORIGIN,
    HeaderName::from_static("x-a"),
];

/// Lines of `Vary`, and the fields of two requests.
type Input<'a> = (Vec<&'a [u8]>, Vec<(u8, &'a [u8])>, Vec<(u8, &'a [u8])>);

fuzz_target!(|input: Input<'_>| {
    let (lines, one, other) = input;
    let mut response = HeaderMap::new();
    for line in lines {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            response.append(header::VARY, value);
        }
    }
    let Some(vary) = Vary::of(&response) else { return };
    let (one, other) = (request(&one), request(&other));
    let (first, second) = (vary.selection(&one), vary.selection(&other));
    assert!(first.matches(&one), "{vary:?} refuses its own request {one:?}");
    assert_eq!(first.matches(&other), first == second, "{vary:?}: {one:?} and {other:?}");
    assert_eq!(first.matches(&other), second.matches(&one), "{vary:?}: {one:?} and {other:?}");
    let written = first.iter().map(|(name, value)| (name.clone(), value.map(<[u8]>::to_vec)));
    assert_eq!(Selection::restored(written), first);

    // Whether a field is there, and what credentials it holds, always matters.
    for (name, _) in first.iter() {
        if first.matches(&other) {
            assert_eq!(one.contains_key(name), other.contains_key(name), "{name}: {one:?} and {other:?}");
            if *name == header::AUTHORIZATION && one.get_all(name).iter().count() == 1 {
                assert_eq!(one.get(name), other.get(name), "{one:?} and {other:?}");
            }
        }
    }
});

fn request(fields: &[(u8, &[u8])]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (index, value) in fields {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.append(NAMES[usize::from(*index) % NAMES.len()].clone(), value);
        }
    }
    headers
}
