//! A path has one form or none, and that form is final.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tollgate::path::canonical;

fuzz_target!(|path: &str| {
    let Ok(once) = canonical(path) else { return };
    assert_eq!(canonical(&once).as_deref(), Ok(&*once), "{path:?} has two forms");
    assert!(once.starts_with('/'), "{once:?}");
    assert!(once.bytes().all(|byte| (0x21..0x7f).contains(&byte) && !b"#?\\".contains(&byte)), "{once:?}");
    for segment in once[1..].split('/') {
        assert!(segment != "." && segment != ".." && !segment.starts_with("..;"), "{once:?} of {path:?}");
    }
    assert!(!once.contains("//"), "{once:?} of {path:?}");
    let encoded = once.to_ascii_lowercase();
    assert!(
        !["%2f", "%5c", "%00", "%0a", "%0d", "%2e"].iter().any(|hidden| encoded.contains(hidden)),
        "{once:?}"
    );
});
