//! What is done to the headers of one message, and in which order?

use std::collections::BTreeMap;

use serde::Deserialize;
use tollgate_plugin_sdk::{
    Change, HeaderValue, Template, may_change,
    template::{Scope, Variable},
    twice,
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
        let renamed = rename.iter().flat_map(|names| {
            let (from, to) = names;
            [("rename", Change::Remove, from), ("rename", Change::Remove, to)]
        });
        let removed = remove.iter().map(|name| ("remove", Change::Remove, name));
        let filled = || {
            let set = set.iter().map(|(name, template)| ("set", name, template));
            set.chain(add.iter().map(|(name, template)| ("add", name, template)))
        };
        let is_response = message == "response";
        for (key, change, name) in renamed.chain(removed).chain(filled().map(|(key, name, _)| match key {
            "set" => (key, Change::Set, name),
            _ => (key, Change::Append, name),
        })) {
            may_change(is_response, change, name)
                .map_err(|why| format!("`{message}.{key}` in `config`: {why}"))?;
        }
        // Of two that set the same header the later would wipe the first.
        let twice = [
            ("rename", twice(rename.values().map(String::as_str))),
            ("set", twice(set.keys().map(String::as_str))),
        ];
        for (key, names) in twice {
            if let Some((one, other)) = names {
                return Err(format!(
                    "`{message}.{key}` in `config`: `{one}` and `{other}` are the same header, and only one would be left"
                ));
            }
        }
        for (key, name, template) in filled() {
            if let Err(why) = template.header_text() {
                return Err(format!(
                    "`{message}.{key}.{name}` in `config`: is not the value of a header: {why}"
                ));
            }
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
                // As the message has it.
                if let Ok(value) = HeaderValue::of_field(&value) {
                    message.report(to, message.append(to, &value));
                }
            }
        }
        for name in &self.remove {
            message.report(name, message.remove(name));
        }
        for (name, template) in &self.set {
            let refusal = match template.header_value(&value) {
                Ok(value) => message.set(name, &value).err().map(|error| error.name().to_owned()),
                Err(why) => Some(why.to_string()),
            };
            if let Some(why) = refusal {
                // Whoever sent the message must not have the word in the place of what cannot be set.
                let outcome = if message.remove(name).is_ok() { "was taken away" } else { "was not changed" };
                message.complain(name, outcome, &why);
            }
        }
        for (name, template) in &self.add {
            match template.header_value(&value) {
                Ok(value) => message.report(name, message.append(name, &value)),
                Err(why) => message.complain(name, "was not added to", &why.to_string()),
            }
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
    struct Fake(RefCell<Vec<(String, String)>>, RefCell<Vec<String>>);

    impl Message for Fake {
        fn values(&self, name: &str) -> Vec<String> {
            let headers = self.0.borrow();
            headers.iter().filter(|(known, _)| known == name).map(|(_, value)| value.clone()).collect()
        }

        fn set(&self, name: &str, value: &HeaderValue) -> Result<(), HeaderError> {
            self.remove(name)?;
            self.append(name, value)
        }

        fn append(&self, name: &str, value: &HeaderValue) -> Result<(), HeaderError> {
            self.0.borrow_mut().push((name.to_owned(), value.to_string()));
            Ok(())
        }

        fn remove(&self, name: &str) -> Result<(), HeaderError> {
            self.0.borrow_mut().retain(|(known, _)| known != name);
            Ok(())
        }

        fn complain(&self, name: &str, outcome: &str, why: &str) {
            self.1.borrow_mut().push(format!("{name} {outcome}: {why}"));
        }
    }

    #[test]
    fn a_header_that_cannot_be_set_is_not_what_the_client_says() {
        let headers = Headers::configure(
            r#"{"request":{"set":{"x-user":"{note.user}","x-copy":"{request.header.x-raw}"},"add":{"x-tag":"{note.user}"}}}"#,
        )
        .expect("the configuration is valid");
        for (user, expected) in [
            ("ann", &[("x-copy", "\u{e9}"), ("x-tag", "ann"), ("x-user", "ann")][..]),
            ("admin ", &[("x-copy", "\u{e9}")]),
            ("\tadmin", &[("x-copy", "\u{e9}")]),
            ("zo\u{eb}", &[("x-copy", "\u{e9}")]),
        ] {
            let message = Fake::default();
            message
                .append("x-user", &HeaderValue::text("root").expect("is a value"))
                .expect("it takes every header");
            headers.request.apply_with(&message, |variable| match variable {
                Variable::Note(_) => Some(user.to_owned()),
                Variable::RequestHeader(_) => Some("\u{e9}".to_owned()),
                _ => None,
            });
            assert_eq!(message.1.borrow().is_empty(), user == "ann", "{user:?}: {:?}", message.1);
            let mut left = message.0.into_inner();
            left.sort();
            let left: Vec<(&str, &str)> =
                left.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            assert_eq!(left, expected, "{user:?}");
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
            let value = HeaderValue::text(value).expect("is a value");
            message.append(name, &value).expect("it takes every header");
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
                r#"{"request":{"set":{"Via":"1"}}}"#,
                "`request.set` in `config`: the proxy itself writes `Via`",
            ),
            (r#"{"request":{"remove":["host"]}}"#, "`request.remove` in `config`: a plugin may set `host`"),
            (
                r#"{"response":{"rename":{"a":"te"}}}"#,
                "`response.rename` in `config`: the proxy itself writes",
            ),
            (
                r#"{"request":{"set":{"x-a":"{status}"}}}"#,
                "`request.set.x-a` in `config`: there is no {status} here",
            ),
            (
                r#"{"request":{"set":{"X-A":"1","x_a":"2"}}}"#,
                "`request.set` in `config`: `X-A` and `x_a` are the same header",
            ),
            (
                r#"{"request":{"rename":{"a":"x-c","b":"X-C"}}}"#,
                "`request.rename` in `config`: `x-c` and `X-C` are the same header",
            ),
            (
                r#"{"request":{"set":{"x-a":"Zo\u00eb {path}"}}}"#,
                "`request.set.x-a` in `config`: is not the value of a header: it has a character beyond ASCII",
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
