//! What may be written, for an editor that does not know?
//!
//! A JSON Schema (draft 2020-12) of `config.toml`. Nobody keeps it: it is what the types of the configuration answer
//! when they are asked. A [`Prober`] leads `serde` to one place of the tree, gives it a value of each kind there, and
//! listens to what it says: the keys of a table are those of "unknown field, expected one of", the words those of
//! "unknown variant". So a key that is read is in the schema, and no other. What keys mean is taken from the comments
//! of the `config.toml` that shows them all.

use std::{cell::Cell, collections::BTreeSet, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{
        self, IntoDeserializer, Visitor,
        value::{BorrowedStrDeserializer, StrDeserializer},
    },
    forward_to_deserialize_any,
};
use serde_json::{Map, Value, json};

use super::Config;

/// Shows every key, with a comment each.
const SHOWN: &str = include_str!("../../../../config.toml");

/// No key of any table and no word that anything is written with, but one that may be a name.
const NOBODYS: &str = "zzzz-nobodys";

/// The schema.
pub fn schema() -> Value {
    // By itself `serde` takes a table as an array of its values, too, which no file can be.
    let mut schema = match probe(&[], &Given::Table(&[NOBODYS])) {
        Err(Error::Key(keys)) => table_of(&mut Vec::new(), keys),
        _ => json!({}),
    };
    describe(&mut schema, SHOWN);
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["title"] = "Tollgate's config.toml".into();
    schema
}

/// What may stand at a place.
fn at(place: &mut Vec<Step>) -> Value {
    let takes = |given: &Given<'_>| !matches!(probe(place, given), Err(Error::Kind));
    let numbers = || (-1..=10).chain([100, 200, 308, 400, 443, 500, 1000, 65_535]);
    let is_taken = |number: i64| probe(place, &Given::Integer(number)).is_ok();
    let (text, truth) = (probe(place, &Given::Text(NOBODYS)), takes(&Given::Truth(true)));
    let (has_integers, has_fractions) = (numbers().any(is_taken), takes(&Given::Fraction(0.5)));
    let (has_items, table) = (takes(&Given::Items), probe(place, &Given::Table(&[NOBODYS])));
    let is_any = text.is_ok()
        && truth
        && has_integers
        && has_fractions
        && has_items
        && matches!(table, Err(Error::Named));
    if is_any {
        return json!({});
    }
    let mut kinds = Vec::new();
    match text {
        Err(Error::Kind) => {}
        Err(Error::Word(words)) => {
            let words: Vec<_> =
                words.iter().filter(|word| probe(place, &Given::Text(word)).is_ok()).collect();
            if !words.is_empty() {
                kinds.push(json!({ "enum": words }));
                kinds.push(variable());
            }
        }
        Err(Error::Text(expected)) => kinds.push(json!({ "type": "string", "description": expected })),
        Ok(()) | Err(Error::Key(_) | Error::Missing(_) | Error::Named | Error::Other) => {
            kinds.push(json!({ "type": "string" }));
        }
    }
    if truth {
        kinds.push(json!({ "type": "boolean" }));
    }
    if has_fractions {
        let mut kind = json!({ "type": "number" });
        if probe(place, &Given::Fraction(-0.5)).is_err() {
            kind["minimum"] = 0.into();
        }
        if probe(place, &Given::Fraction(1.5)).is_err() {
            kind["maximum"] = 1.into();
        }
        kinds.push(kind);
    } else if has_integers {
        let mut kind = json!({ "type": "integer" });
        if let Some(least) = (0..=10).find(|number| is_taken(*number)).filter(|_| !is_taken(-1)) {
            kind["minimum"] = least.into();
        }
        kinds.push(kind);
    }
    if has_items {
        place.push(Step::Item);
        kinds.push(json!({ "type": "array", "items": at(place) }));
        place.pop();
    }
    match table {
        Err(Error::Key(keys) | Error::Word(keys)) if !keys.is_empty() => kinds.push(table_of(place, keys)),
        Err(Error::Named) => {
            place.push(Step::Key(NOBODYS));
            kinds.push(json!({ "type": "object", "additionalProperties": at(place) }));
            place.pop();
        }
        Ok(()) => kinds.push(json!({ "type": "object" })),
        Err(_) => {}
    }
    match kinds.len() {
        0 => json!({}),
        1 => kinds.remove(0),
        _ => json!({ "anyOf": kinds }),
    }
}

/// A table with these keys and no others.
fn table_of(place: &mut Vec<Step>, keys: &'static [&'static str]) -> Value {
    let mut properties = Map::new();
    for key in keys {
        place.push(Step::Key(key));
        properties.insert((*key).to_owned(), at(place));
        place.pop();
    }
    let mut table = json!({ "type": "object", "properties": properties, "additionalProperties": false });
    let required = required(place);
    if !required.is_empty() {
        table["required"] = required.into();
    } else if !is_whole(place, &[]) {
        let ways: Vec<_> = keys.iter().filter(|key| is_enough(place, key)).collect();
        if !ways.is_empty() {
            table["oneOf"] = ways.into_iter().map(|key| json!({ "required": [key] })).collect();
        }
    }
    table
}

/// Whether a table is whole with this key alone.
fn is_enough(place: &[Step], key: &'static str) -> bool {
    FILLINGS.into_iter().any(|filling| is_whole(place, &[(key, filling)]))
}

/// Whether a table with these keys is taken, by what it is made into as well.
fn is_whole(place: &[Step], entries: &[(&'static str, Given<'static>)]) -> bool {
    let (result, answer) = ask(place, &Given::Filled(entries));
    matches!(answer, Some(Ok(()))) && !matches!(result, Err(Error::Other))
}

/// What most keys that must be there would take, one or another.
const FILLINGS: [Given<'static>; 5] = [
    Given::Text("127.0.0.1:1"),
    Given::Text("http://127.0.0.1:1"),
    Given::Text("/path"),
    Given::List("http://127.0.0.1:1"),
    Given::Fraction(0.5),
];

/// The keys that must be there. It is told of one at a time, so the table is filled with what each of them takes. Where one
/// takes none of this, those behind it are not found.
fn required(place: &[Step]) -> Vec<&'static str> {
    let mut filled: Vec<(&'static str, Given<'static>)> = Vec::new();
    let mut answer = probe(place, &Given::Filled(&filled));
    while let Err(Error::Missing(key)) = answer {
        let fillings = FILLINGS.into_iter().find_map(|filling| {
            filled.push((key, filling));
            let answer = probe(place, &Given::Filled(&filled));
            let is_taken = match answer {
                Ok(()) => true,
                Err(Error::Missing(next)) => next != key,
                Err(_) => false,
            };
            if !is_taken {
                filled.pop();
            }
            is_taken.then_some(answer)
        });
        let Some(next) = fillings else {
            filled.push((key, Given::Items));
            break;
        };
        answer = next;
    }
    filled.into_iter().map(|(key, _)| key).collect()
}

/// A word may come from the environment.
fn variable() -> Value {
    json!({ "type": "string", "pattern": "\\$\\{" })
}

/// One step into the tree.
#[derive(Debug, Clone, Copy)]
enum Step {
    Key(&'static str),
    Item,
}

/// What is given where the steps lead to.
#[derive(Debug, Clone, Copy)]
enum Given<'a> {
    Text(&'a str),
    Integer(i64),
    Fraction(f64),
    Truth(bool),
    /// An array of nothing.
    Items,
    /// A table with these keys, whose values nobody has got to yet.
    Table(&'a [&'static str]),
    /// An array of one text.
    List(&'a str),
    /// A table with these keys and values.
    Filled(&'a [(&'static str, Given<'static>)]),
}

/// What is said to it.
#[derive(Debug, Clone)]
enum Error {
    /// It is of the wrong kind.
    Kind,
    /// A key that the table does not have: it has these.
    Key(&'static [&'static str]),
    /// A word that is none of these.
    Word(&'static [&'static str]),
    /// A text that is not what is expected.
    Text(String),
    Missing(&'static str),
    /// The key was taken as a name.
    Named,
    Other,
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, formatter)
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self::Other
    }

    fn invalid_type(_: de::Unexpected<'_>, _: &dyn de::Expected) -> Self {
        Self::Kind
    }

    fn invalid_value(_: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::Text(expected.to_string())
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        Self::Word(expected)
    }

    fn unknown_field(_: &str, expected: &'static [&'static str]) -> Self {
        Self::Key(expected)
    }

    fn missing_field(field: &'static str) -> Self {
        Self::Missing(field)
    }
}

/// What the configuration says to a value at a place.
fn probe(place: &[Step], given: &Given<'_>) -> Result<(), Error> {
    match ask(place, given) {
        // What is missing beside the place is not its fault.
        (Err(Error::Missing(_) | Error::Other), answer) if !place.is_empty() => {
            answer.unwrap_or(Err(Error::Kind))
        }
        (result, _) => result,
    }
}

/// What the whole of the configuration says, and what was said at the place itself, if anybody came there.
fn ask(place: &[Step], given: &Given<'_>) -> (Result<(), Error>, Option<Result<(), Error>>) {
    let answer = Cell::new(None);
    let result = Config::deserialize(Prober { place, given, answer: &answer }).map(drop);
    (result, answer.into_inner())
}

/// Leads to a place, and gives something there.
#[derive(Clone, Copy)]
struct Prober<'a> {
    place: &'a [Step],
    given: &'a Given<'a>,
    /// What was said to it at the place itself.
    answer: &'a Cell<Option<Result<(), Error>>>,
}

impl<'a> Prober<'a> {
    fn note<T>(self, result: Result<T, Error>) -> Result<T, Error> {
        if self.place.is_empty() {
            self.answer.set(Some(result.as_ref().map(drop).map_err(Error::clone)));
        }
        result
    }

    fn go<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.place {
            [Step::Key(key), rest @ ..] => visitor.visit_map(Keys {
                keys: &[*key],
                inner: Prober { place: rest, ..self },
                is_asked: None,
            }),
            [Step::Item, rest @ ..] => visitor.visit_seq(Item(Some(Prober { place: rest, ..self }))),
            [] => {
                let result = self.give(visitor);
                self.note(result)
            }
        }
    }

    fn give<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match *self.given {
            Given::Text(text) => visitor.visit_str(text),
            Given::Integer(number) => visitor.visit_i64(number),
            Given::Fraction(number) => visitor.visit_f64(number),
            Given::Truth(truth) => visitor.visit_bool(truth),
            Given::Items => visitor.visit_seq(Item(None)),
            Given::Table(keys) => {
                let is_asked = Cell::new(false);
                let inner = Prober { given: &Given::Items, ..self };
                let result = visitor.visit_map(Keys { keys, inner, is_asked: Some(&is_asked) });
                if is_asked.get() { Err(Error::Named) } else { result }
            }
            Given::List(text) => visitor.visit_seq(Item(Some(Prober { given: &Given::Text(text), ..self }))),
            Given::Filled(entries) => visitor.visit_map(Entries { left: entries, inner: self }),
        }
    }
}

impl<'de> Deserializer<'de> for Prober<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.go(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match fields {
            // A value with its place in the file, as `toml` and `serde` agree on it.
            [start, end, value] if name.starts_with("$__serde_spanned") => {
                visitor.visit_map(Spanned { left: vec![value, end, start], inner: self })
            }
            _ => self.go(visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let result = match (self.place, self.given) {
            ([], Given::Text(word)) => {
                let word: StrDeserializer<'_, Error> = word.into_deserializer();
                visitor.visit_enum(word)
            }
            _ => Err(Error::Kind),
        };
        self.note(result)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        seq tuple tuple_struct map identifier ignored_any
    }
}

/// A table with these keys, each with the same value.
struct Keys<'a> {
    keys: &'a [&'static str],
    inner: Prober<'a>,
    /// Whether a value was asked for.
    is_asked: Option<&'a Cell<bool>>,
}

impl<'de> de::MapAccess<'de> for Keys<'_> {
    type Error = Error;

    fn next_key_seed<K: de::DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some((key, rest)) = self.keys.split_first() else { return Ok(None) };
        self.keys = rest;
        let (given, answer) = (Given::Text(key), Cell::new(None));
        seed.deserialize(Prober { place: &[], given: &given, answer: &answer }).map(Some)
    }

    fn next_value_seed<V: de::DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        if let Some(is_asked) = self.is_asked {
            is_asked.set(true);
        }
        seed.deserialize(self.inner)
    }
}

/// A table with these keys and values.
struct Entries<'a> {
    left: &'a [(&'static str, Given<'static>)],
    inner: Prober<'a>,
}

impl<'de> de::MapAccess<'de> for Entries<'_> {
    type Error = Error;

    fn next_key_seed<K: de::DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some((key, _)) = self.left.first() else { return Ok(None) };
        seed.deserialize(BorrowedStrDeserializer::<Error>::new(key)).map(Some)
    }

    fn next_value_seed<V: de::DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let Some(((_, given), rest)) = self.left.split_first() else { return Err(Error::Other) };
        self.left = rest;
        seed.deserialize(Prober { given, ..self.inner })
    }
}

/// An array of one, or of none.
struct Item<'a>(Option<Prober<'a>>);

impl<'de> de::SeqAccess<'de> for Item<'_> {
    type Error = Error;

    fn next_element_seed<T: de::DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        self.0.take().map(|inner| seed.deserialize(inner)).transpose()
    }
}

/// What a value with its place is read from.
struct Spanned<'a> {
    /// Backwards.
    left: Vec<&'static str>,
    inner: Prober<'a>,
}

impl<'de> de::MapAccess<'de> for Spanned<'_> {
    type Error = Error;

    fn next_key_seed<K: de::DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let key = self.left.pop();
        key.map(|key| seed.deserialize(BorrowedStrDeserializer::<Error>::new(key))).transpose()
    }

    fn next_value_seed<V: de::DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        match self.left.len() {
            0 => seed.deserialize(self.inner),
            _ => seed.deserialize(IntoDeserializer::<Error>::into_deserializer(0_usize)),
        }
    }
}

/// Gives each key the comment above it, and what it is if it is not written.
fn describe(schema: &mut Value, redacted: &str) {
    let (mut table, mut comment): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    let mut known = BTreeSet::new();
    for line in redacted.lines() {
        let written = line.strip_prefix("# ").unwrap_or(line);
        let is_comment = line.starts_with('#');
        let name = written.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
        if let Some(name) = name.map(|name| name.trim_start_matches('[').trim_end_matches(']')) {
            table = name.split('.').collect();
            if known.insert(table.clone()) {
                note(schema, &table, &comment.join(" "), None);
            }
            comment.clear();
        } else if let Some((key, value)) = written.split_once(" = ").filter(|(key, _)| is_key(key)) {
            let path: Vec<&str> = table.iter().copied().chain(key.split('.')).collect();
            let comment_text = comment.join(" ");
            let is_default =
                !is_comment && !comment_text.contains("Required") && !comment_text.contains("Default:");
            let value = format!("value = {value}").parse::<toml::Table>().ok();
            let value =
                value.filter(|_| is_default).and_then(|table| serde_json::to_value(&table["value"]).ok());
            let is_of_plugin = path.first() == Some(&"plugins") && path.len() > 2 && path[2] == "config";
            if known.insert(path.clone()) {
                note(schema, &path, &comment_text, value.filter(|_| !is_of_plugin));
            }
            comment.clear();
        } else if is_comment {
            comment.push(written);
        } else {
            comment.clear();
        }
    }
}

fn is_key(text: &str) -> bool {
    let is_in_keys = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
    text.starts_with(|c: char| c.is_ascii_lowercase()) && text.bytes().all(is_in_keys)
}

/// Notes at a place what is said of it.
fn note(schema: &mut Value, path: &[&str], comment: &str, default: Option<Value>) {
    let Some((key, rest)) = path.split_first() else {
        if !comment.is_empty() {
            let expected =
                schema["description"].as_str().map(|expected| format!("{comment} Written as {expected}."));
            schema["description"] = expected.unwrap_or_else(|| comment.to_owned()).into();
        }
        if let Some(default) = default {
            schema["default"] = default;
        }
        return;
    };
    if let Some(kinds) = schema.get_mut("anyOf").and_then(Value::as_array_mut) {
        kinds.iter_mut().for_each(|kind| note(kind, path, comment, default.clone()));
    } else if let Some(items) = schema.get_mut("items") {
        note(items, path, comment, default);
    } else if let Some(property) = schema.get_mut("properties").and_then(|all| all.get_mut(key)) {
        note(property, rest, comment, default);
    } else if let Some(named) = schema.get_mut("additionalProperties").filter(|named| named.is_object()) {
        note(named, rest, comment, default);
    }
}
