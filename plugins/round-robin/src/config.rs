//! Is there anything in the configuration that this plugin would silently ignore?

/// Accepts the empty JSON object alone: there is nothing to configure.
///
/// Reading as far as the first key is enough to refuse the rest, and saves a JSON parser.
pub(crate) fn check(config: &str) -> Result<(), String> {
    let inside = config.trim_ascii().strip_prefix('{').map(str::trim_ascii_start);
    if inside == Some("}") {
        return Ok(());
    }
    match inside.and_then(leading_string) {
        Some(key) => {
            Err(format!("unknown key {key}: round-robin has nothing to configure, remove it from `config`"))
        }
        None => Err("`config` is not a table: round-robin has nothing to configure, remove it".to_owned()),
    }
}

/// The JSON string that the text begins with, in its quotes and as it was written.
fn leading_string(text: &str) -> Option<&str> {
    let mut escaped = false;
    let end = text.strip_prefix('"')?.bytes().position(|byte| {
        let closing = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closing
    })?;
    // The two quotes are not part of what was searched.
    text.get(..end + 2)
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn an_empty_table_is_accepted() {
        for config in ["{}", " { } ", "{\n}\n"] {
            assert_eq!(check(config), Ok(()), "{config:?}");
        }
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        for (config, key) in [
            (r#"{"speed":1}"#, r#""speed""#),
            (r#" { "a b" : {} }"#, r#""a b""#),
            (r#"{"a\"b\\":1}"#, r#""a\"b\\""#),
            (r#"{"":1}"#, r#""""#),
        ] {
            let refusal = check(config).expect_err("is refused");
            assert!(refusal.starts_with(&format!("unknown key {key}:")), "{config}: {refusal}");
        }
    }

    #[test]
    fn what_is_not_an_object_is_refused() {
        for config in ["", "{", "[]", "null", "}", "{{", "{}}", r#"{""#, r#"{"a"#, r#"{"a\"}"#, "{ä", "\u{0}"]
        {
            let refusal = check(config).expect_err("is refused");
            assert!(refusal.starts_with("`config` is not a table"), "{config:?}: {refusal}");
        }
    }
}
