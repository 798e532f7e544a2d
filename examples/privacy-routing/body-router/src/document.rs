//! What does a JSON document hold?

use std::fmt;

use serde::{Deserialize, Deserializer, de};
use serde_json::{Map, Value};

/// A document in which no object has two members of the same name: of two, one reader takes the first and another the
/// last, and what is hidden in the other goes where it must not.
#[derive(Debug)]
pub(crate) struct Document(Value);

/// Where something is in a document: a pointer (RFC 6901) in which `*` is any item of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pointer(Vec<String>);

impl Document {
    pub(crate) fn read(text: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(text)
    }

    /// Everything that is there.
    pub(crate) fn find<'a>(&'a self, Pointer(names): &Pointer) -> Vec<&'a Value> {
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
        names.iter().fold(vec![&self.0], |found, name| {
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

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Value;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("JSON")
            }

            fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
                Ok(value.into())
            }

            fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
                Ok(value.into())
            }

            fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
                Ok(value.into())
            }

            fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
                Ok(value.into())
            }

            fn visit_str<E>(self, value: &str) -> Result<Value, E> {
                Ok(value.into())
            }

            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
                let mut list = Vec::new();
                while let Some(Document(item)) = items.next_element()? {
                    list.push(item);
                }
                Ok(list.into())
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
                let mut object = Map::new();
                while let Some((name, Document(value))) = members.next_entry::<String, Document>()? {
                    if object.insert(name, value).is_some() {
                        return Err(de::Error::custom("a member is there twice"));
                    }
                }
                Ok(object.into())
            }
        }

        deserializer.deserialize_any(Visitor).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_pointer_leads_to_is_found() {
        let text = br#"{"a":{"b/c":1,"":2},"list":[{"x":3},{"y":4},{"x":5}],"n":null}"#;
        let document = Document::read(text).expect("it is JSON");
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
            let found: Vec<String> = document.find(&pointer).iter().map(ToString::to_string).collect();
            assert_eq!(found, expected, "{pointer:?}");
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        for text in [r#"{"a":1,"a":2}"#, r#"[{"a":{"b":1,"b":1}}]"#, r#"{"a":1,"\u0061":2}"#] {
            let refusal = Document::read(text.as_bytes()).expect_err(text).to_string();
            assert!(refusal.starts_with("a member is there twice"), "{refusal}");
        }
        for text in ["", "{", "{} x", &"[".repeat(100_000)] {
            assert!(Document::read(text.as_bytes()).is_err(), "{text:.10}");
        }
        assert!(Document::read(br#"{"a":[{"a":1.5},{"a":-1}],"b":true,"c":18446744073709551615}"#).is_ok());
    }
}
