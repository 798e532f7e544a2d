//! It does not matter in what pieces a header comes, and what was read of it is what is read when it is written.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tollgate::proxy_protocol::{ProxyHeader, LONGEST};

fuzz_target!(|bytes: &[u8]| {
    let whole = ProxyHeader::read(bytes);
    let first =
        (0..=bytes.len()).map(|end| ProxyHeader::read(&bytes[..end])).find(|read| !matches!(read, Ok(None)));
    match first {
        Some(first) => assert_eq!(first, whole, "more bytes have changed it: {bytes:?}"),
        None => assert_eq!(whole, Ok(None)),
    }
    match whole {
        Ok(Some((introduction, length))) => {
            assert!(length <= bytes.len() && length <= LONGEST);
            assert_eq!(ProxyHeader::read(&bytes[..length - 1]), Ok(None), "it ends where it is said to end");
            let written = introduction.write();
            assert_eq!(ProxyHeader::read(&written), Ok(Some((introduction, written.len()))));
        }
        Ok(None) => assert!(bytes.len() < LONGEST, "there is an end to waiting"),
        Err(_) => {}
    }
});
