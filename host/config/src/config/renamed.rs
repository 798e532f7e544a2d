//! Which keys have had another name?
//!
//! A configuration that was written for an older version stays valid: its keys get the names that they have now before it
//! is read, and each is told of with its place.

use std::{borrow::Cow, ops::Range};

use toml::{Spanned, de::DeTable, de::DeValue};

/// A key with a name from before.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Renamed {
    pub span: Range<usize>,
    pub before: &'static str,
    pub now: &'static str,
}

/// In a plugin's table: the table in it, the name that a key of it had, and the one that it has.
const IN_PLUGINS: [(&str, &str, &str); 2] =
    [("canary", "share", "weight"), ("breaker", "share", "cpu-share")];

/// Gives keys the names that they have now. `document` is a configuration, or the table of one plugin.
pub(super) fn rename(document: &mut DeTable<'_>) -> Vec<Renamed> {
    let mut found = Vec::new();
    in_plugin(document, &mut found);
    if let Some(plugins) = table_at(document, "plugins") {
        for (_, plugin) in plugins.iter_mut() {
            if let DeValue::Table(plugin) = plugin.get_mut() {
                in_plugin(plugin, &mut found);
            }
        }
    }
    found
}

fn in_plugin(plugin: &mut DeTable<'_>, found: &mut Vec<Renamed>) {
    for (table, before, now) in IN_PLUGINS {
        let Some(table) = table_at(plugin, table).filter(|table| !table.contains_key(now)) else { continue };
        if let Some((key, value)) = table.remove_entry(before) {
            found.push(Renamed { span: key.span(), before, now });
            table.insert(Spanned::new(key.span(), Cow::Borrowed(now)), value);
        }
    }
}

fn table_at<'a, 'de>(table: &'a mut DeTable<'de>, key: &str) -> Option<&'a mut DeTable<'de>> {
    match table.get_mut(key)?.get_mut() {
        DeValue::Table(table) => Some(table),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_the_name_that_it_has_now_and_is_told_of() {
        for (text, names) in [
            ("[plugins.a]\ncanary = { share = 0.1 }", &["share"][..]),
            ("[plugins.a.breaker]\nshare = 0.1\n[plugins.b]\nbreaker.share = 0.1", &["share", "share"]),
            ("canary = { share = 0.1 }", &["share"]),
            ("canary = 0.1", &[]),
            ("[plugins.a.config]\nbreaker.share = 1", &[]),
            ("[plugins.a.breaker]\nshare = 0.1\ncpu-share = 0.2", &[]),
        ] {
            let mut document = DeTable::parse(text).expect("it is TOML").into_inner();
            let renamed = rename(&mut document);
            let found: Vec<_> = renamed.iter().map(|renamed| &text[renamed.span.clone()]).collect();
            assert_eq!(found, names, "{text}");
            assert!(rename(&mut document).is_empty(), "{text}");
        }
    }
}
