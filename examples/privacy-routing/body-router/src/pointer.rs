//! What is in a JSON document at a place?

use serde::{Deserialize, Deserializer, de};
use serde_json::Value;
use tollgate_plugin_sdk::Document;

/// Where something is in a document: a pointer (RFC 6901) in which `*` is any item of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pointer(Vec<String>);

impl Pointer {
    /// Everything that is there.
    pub(crate) fn find<'a>(&self, Document(document): &'a Document) -> Vec<&'a Value> {
        let inside = |value: &'a Value, name: &String| -> Vec<&'a Value> {
            match value {
                Value::Array(items) if name == "*" => items.iter().collect(),
                Value::Array(items) => {
                    name.parse::<usize>().ok().and_then(|place| items.get(place)).into_iter().collect()
                }
                Value::Object(members) => members.get(name).into_iter().collect(),
                _ => Vec::new(),
            }
        };
        self.0.iter().fold(vec![document], |found, name| {
            found.into_iter().flat_map(|value| inside(value, name)).collect()
        })
    }
}

impl<'de> Deserialize<'de> for Pointer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let names = text.strip_prefix('/').ok_or_else(|| {
            de::Error::custom("is no JSON pointer: it begins with a slash, such as \"/customer/email\"")
        })?;
        Ok(Self(names.split('/').map(|name| name.replace("~1", "/").replace("~0", "~")).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_pointer_leads_to_is_found() {
        let text = br#"{"a":{"b/c":1,"":2},"list":[{"x":3},{"y":4},{"x":5}],"n":null}"#;
        let document: Document = serde_json::from_slice(text).expect("it is JSON");
        for (pointer, expected) in [
            ("/a/b~1c", &["1"][..]),
            ("/a/", &["2"]),
            ("/list/*/x", &["3", "5"]),
            ("/list/1/y", &["4"]),
            ("/list/9/y", &[]),
            ("/list/x", &[]),
            ("/a/*", &[]),
            ("/n", &["null"]),
            ("/n/m", &[]),
        ] {
            let pointer: Pointer = serde_json::from_value(pointer.into()).expect(pointer);
            let found: Vec<String> = pointer.find(&document).iter().map(ToString::to_string).collect();
            assert_eq!(found, expected, "{pointer:?}");
        }
    }
}
