//! It does not matter how the bytes of a connection are cut, and another reader sees the same message in them.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tollgate::{
    config::ListenerLimits,
    listen::framing::{Fault, Framing},
};

fuzz_target!(|input: (&[u8], Vec<u8>)| {
    let (bytes, cuts) = input;
    let whole = pass(bytes, &[]);
    assert_eq!(whole, pass(bytes, &cuts), "it matters how {bytes:?} is cut by {cuts:?}");
    assert_eq!(whole, pass(bytes, &[1]), "byte by byte");
    let (passed, _) = whole;
    let mut fields = [httparse::EMPTY_HEADER; 128];
    let mut request = httparse::Request::new(&mut fields);
    // What that does not take, hyper does not either: it is refused behind this.
    let Ok(httparse::Status::Complete(head)) = request.parse(&bytes[..passed]) else { return };
    let values = |name: &str| -> Vec<&[u8]> {
        let named = request.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
        named.map(|field| field.value).collect()
    };
    let (lengths, codings) = (values("content-length"), values("transfer-encoding"));
    assert!(lengths.len() + codings.len() <= 1, "two lengths passed: {bytes:?}");
    assert!(values("host").len() <= 1, "two hosts passed: {bytes:?}");
    if let [length] = lengths[..] {
        let length: u64 =
            std::str::from_utf8(length).ok().and_then(|text| text.parse().ok()).expect("a length");
        // All that was passed behind the head is body, until there are as many bytes; then there may be another head.
        let mut framing = Framing::new(&ListenerLimits::default());
        assert_eq!(framing.advance(&bytes[..head]), Ok(head));
        assert_eq!(framing.expects_head(), length == 0);
    }
    for coding in codings {
        assert!(coding.eq_ignore_ascii_case(b"chunked"), "{coding:?} passed");
    }
});

/// How many bytes pass, and what is wrong with the rest, if they come in pieces of these sizes, again and again.
fn pass(bytes: &[u8], cuts: &[u8]) -> (usize, Option<Fault>) {
    let mut framing = Framing::new(&ListenerLimits::default());
    let (mut passed, mut come) = (0, 0);
    let mut cuts = cuts.iter().cycle();
    while come < bytes.len() {
        let size = cuts.next().map_or(bytes.len(), |size| usize::from(*size).max(1));
        come = (come + size).min(bytes.len());
        loop {
            match framing.advance(&bytes[passed..come]) {
                Ok(0) => break,
                Ok(count) => passed += count,
                Err(fault) => return (passed, Some(fault)),
            }
        }
    }
    (passed, None)
}
