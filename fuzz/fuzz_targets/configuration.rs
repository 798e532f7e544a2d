//! Any text is read as a configuration or refused with problems that can be shown, in bounded time and number.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use tollgate::config::read_text;

fuzz_target!(|text: &str| {
    let environment = |name: &str| (name.len() % 2 == 0).then(|| "1".to_owned());
    match read_text(Path::new("config.toml"), text.to_owned(), &environment) {
        Ok((config, _)) => assert!(!format!("{config:?}").is_empty()),
        Err(problems) => {
            let shown = problems.to_string();
            assert!(!shown.trim().is_empty(), "a problem without words: {text:?}");
            assert!(shown.len() < 1 << 20, "{} bytes about {} bytes", shown.len(), text.len());
        }
    }
});
