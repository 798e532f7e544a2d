//! Whatever a plugin replies is refused, or is a response that cannot be read in two ways.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tollgate::plugin::Reply;

const NAMES: [&str; 10] = [
    "content-length",
    "Transfer-Encoding",
    "transfer_encoding",
    "Connection",
    "upgrade",
    "keep-alive",
    "trailer",
    "set-cookie",
    "content-type",
    "",
];

fuzz_target!(|input: (u16, Vec<(u8, &str, &str)>, Vec<u8>)| {
    let (status, fields, body) = input;
    let headers = fields.iter().map(|(index, name, value)| {
        let known = NAMES[usize::from(*index) % NAMES.len()];
        (if known.is_empty() { *name } else { known }.to_owned(), (*value).to_owned())
    });
    let Ok(reply) = Reply::new(status, headers.collect(), body.clone().into()) else { return };
    assert!((200..600).contains(&reply.status.as_u16()), "{reply:?}");
    assert_eq!(reply.body, body);
    let mut size = 0;
    for (name, value) in &reply.headers {
        size += name.as_str().len() + value.len();
        for ours in &NAMES[..6] {
            assert!(
                !name.as_str().replace('_', "-").eq_ignore_ascii_case(&ours.replace('_', "-")),
                "{reply:?}"
            );
        }
        assert!(!value.as_bytes().iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)), "{reply:?}");
    }
    assert!(size <= 64 << 10, "{size} bytes of headers");
});
