//! What is done to the headers of one message, and in which order?

use std::collections::BTreeMap;

use serde::Deserialize;
use tollgate_plugin_sdk::{
    Template, config,
    template::{Scope, Variable},
};

use crate::Message;

/// First headers are renamed, then removed, then set, then added.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Edits {
    /// From the name to the name.
    #[serde(default)]
    rename: BTreeMap<String, String>,
    #[serde(default)]
    remove: Vec<String>,
    #[serde(default)]
    set: BTreeMap<String, Template>,
    #[serde(default)]
    add: BTreeMap<String, Template>,
}

impl Edits {
    pub(crate) fn is_empty(&self) -> bool {
        let Self { rename, remove, set, add } = self;
        rename.is_empty() && remove.is_empty() && set.is_empty() && add.is_empty()
    }

    /// Whether it can be done to a message of this kind, which the configuration calls `message`.
    pub(crate) fn check(&self, message: &str, scope: Scope) -> Result<(), String> {
        let Self { rename, remove, set, add } = self;
        let renamed = rename.iter().flat_map(|(from, to)| [("rename", from), ("rename", to)]);
        let removed = remove.iter().map(|name| ("remove", name));
        let filled = || {
            let set = set.iter().map(|(name, template)| ("set", name, template));
            set.chain(add.iter().map(|(name, template)| ("add", name, template)))
        };
        for (key, name) in renamed.chain(removed).chain(filled().map(|(key, name, _)| (key, name))) {
            if !config::is_header_name(name) {
                return Err(format!(
                    "`{message}.{key}` in `config`: `{}` is not the name of a header",
                    name.escape_debug()
                ));
            }
        }
        for (key, name, template) in filled() {
            if let Some(variable) = template.out_of_scope(scope, |_| false) {
                return Err(format!("`{message}.{key}.{name}` in `config`: there is no {variable} here"));
            }
        }
        Ok(())
    }

    pub(crate) fn apply(&self, message: &impl Message) {
        self.apply_with(message, Variable::value);
    }

    fn apply_with(&self, message: &impl Message, value: impl Fn(&Variable) -> Option<String>) {
        for (from, to) in &self.rename {
            let values = message.values(from);
            if values.is_empty() {
                continue;
            }
            message.report(from, message.remove(from));
            message.report(to, message.remove(to));
            for value in values {
                message.report(to, message.append(to, &value));
            }
        }
        for name in &self.remove {
            message.report(name, message.remove(name));
        }
        for (name, template) in &self.set {
            message.report(name, message.set(name, &template.render(&value)));
        }
        for (name, template) in &self.add {
            message.report(name, message.append(name, &template.render(&value)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use tollgate_plugin_sdk::{HeaderError, Plugin};

    use super::*;
    use crate::Headers;

    #[derive(Default)]
    struct Fake(RefCell<Vec<(String, String)>>);

    impl Message for Fake {
        fn values(&self, name: &str) -> Vec<String> {
            let headers = self.0.borrow();
            headers.iter().filter(|(known, _)| known == name).map(|(_, value)| value.clone()).collect()
        }

        fn set(&self, name: &str, value: &str) -> Result<(), HeaderError> {
            self.remove(name)?;
            self.append(name, value)
        }

        fn append(&self, name: &str, value: &str) -> Result<(), HeaderError> {
            self.0.borrow_mut().push((name.to_owned(), value.to_owned()));
            Ok(())
        }

        fn remove(&self, name: &str) -> Result<(), HeaderError> {
            self.0.borrow_mut().retain(|(known, _)| known != name);
            Ok(())
        }
    }

    #[test]
    fn headers_are_renamed_removed_set_and_added_in_this_order() {
        let headers = Headers::configure(
            r#"{"request":{
                "rename":{"x-old":"x-new","x-none":"x-kept"},
                "remove":["x-gone"],
                "set":{"x-from":"{client-address}","x-set":"1"},
                "add":{"x-set":"2"}
            }}"#,
        )
        .expect("the configuration is valid");
        let message = Fake::default();
        for (name, value) in
            [("x-old", "a"), ("x-old", "b"), ("x-new", "z"), ("x-gone", "y"), ("x-kept", "k"), ("x-set", "0")]
        {
            message.append(name, value).expect("it takes every header");
        }
        headers.request.apply_with(&message, |variable| Some(variable.to_string()));
        let mut left = message.0.into_inner();
        left.sort();
        let left: Vec<(&str, &str)> =
            left.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(
            left,
            [
                ("x-from", "{client-address}"),
                ("x-kept", "k"),
                ("x-new", "a"),
                ("x-new", "b"),
                ("x-set", "1"),
                ("x-set", "2")
            ]
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_the_place() {
        for (config, reason) in [
            ("{}", "changes nothing"),
            (r#"{"request":{"remove":["a b"]}}"#, "`request.remove` in `config`: `a b` is not the name"),
            (
                r#"{"request":{"set":{"x-a":"{status}"}}}"#,
                "`request.set.x-a` in `config`: there is no {status} here",
            ),
            (r#"{"response":{"add":{"x-a":"{1}"}}}"#, "`response.add.x-a` in `config`: there is no {1} here"),
            (
                r#"{"response":{"add":{"x-a":"{what.not}"}}}"#,
                "`response.add.x-a` in `config`: there is no `{what.not}`",
            ),
        ] {
            let refusal = Headers::configure(config).expect_err("is refused");
            assert!(refusal.contains(reason), "{config}: {refusal}");
        }
    }
}
