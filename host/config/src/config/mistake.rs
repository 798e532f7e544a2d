//! What is wrong with a value of the configuration, and what is said of it?
//!
//! `serde` reports what a type says of a value by the functions of [`de::Error`]: what they are given is kept as it is, and
//! the message is made of it here alone, in the words of TOML. Of what a type expects, `serde` has no more than a text; it is
//! shown, and decides nothing.

use std::{fmt, iter, ops::Range};

use serde::{
    Deserialize,
    de::{self, Unexpected},
};

use super::{Problem, problem, slip};

/// What a type says of a value.
#[derive(Debug)]
pub(super) struct Mistake {
    pub kind: Kind,
    /// Where the value is, or the key.
    pub span: Option<Range<usize>>,
}

#[derive(Debug)]
pub(super) enum Kind {
    UnknownKey {
        key: String,
        known: Keys,
    },
    MissingKey(&'static str),
    /// Another word than those that are known.
    UnknownWord {
        word: String,
        known: Keys,
    },
    WrongType {
        found: Type,
        wanted: Wanted,
    },
    WrongValue {
        wanted: Wanted,
    },
    /// A whole number beyond those that TOML has.
    TooLarge,
    /// What the type says itself, in full.
    Own(String),
}

/// Words that a type knows.
pub(super) type Keys = &'static [&'static str];

/// What TOML has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    Text,
    Integer,
    Float,
    Truth,
    Array,
    Table,
}

/// What a type wants.
#[derive(Debug)]
pub(super) struct Wanted {
    /// As it says itself.
    words: String,
    /// What it has asked the value for; none if it takes several types.
    asked: Option<Type>,
    /// The keys of the table that it wants, if they are known.
    keys: Keys,
}

impl Mistake {
    fn new(kind: Kind) -> Self {
        Self { kind, span: None }
    }

    /// A value that is no table, where one with these keys is wanted.
    pub fn no_table(found: Type, expected: &dyn de::Expected, keys: Keys) -> Self {
        let wanted = Wanted { words: expected.to_string(), asked: Some(Type::Table), keys };
        Self::new(Kind::WrongType { found, wanted })
    }

    pub fn too_large() -> Self {
        Self::new(Kind::TooLarge)
    }

    /// It is about what is at `span`, unless it is about something inside already.
    pub fn at(self, span: Range<usize>) -> Self {
        Self { span: self.span.or(Some(span)), ..self }
    }

    /// The same for a value that was asked for a type.
    pub fn at_asked(mut self, span: Range<usize>, asked: Type) -> Self {
        if let (None, Kind::WrongType { wanted, .. } | Kind::WrongValue { wanted }) =
            (&self.span, &mut self.kind)
        {
            wanted.asked = Some(asked);
        }
        self.at(span)
    }

    /// What is said of it, in a document that has these keys at its top.
    pub fn problem(self, top: Keys) -> Problem {
        let span = self.span.unwrap_or_default();
        match self.kind {
            Kind::UnknownKey { key, known } => {
                let help = meant(&key, known, top);
                let problem = Problem::at(span, format!("unknown key `{key}`")).help(help);
                Problem { kind: problem::Kind::UnknownKey(key), ..problem }
            }
            Kind::MissingKey(key) => Problem::at(span, format!("the key `{key}` is missing")),
            Kind::UnknownWord { word, known } => {
                let problem = Problem::at(span, format!("expected `{}`", known.join("` or `")));
                match nearest(&word, known) {
                    Some(near) => problem.help(format!("did you mean `{near}`?")),
                    None => problem,
                }
            }
            Kind::WrongType { found, wanted } => {
                let message = format!("expected {}, found {}", in_toml(&wanted.words), found.name());
                let problem = Problem::at(span, message);
                match (wanted.asked, found) {
                    (Some(Type::Table), Type::Array) | (Some(Type::Array), Type::Table) => {
                        problem.help("a table that stands once is `[name]`, one of several is `[[name]]`")
                    }
                    (Some(Type::Array), _) => problem.help("write it in brackets: `[...]`"),
                    _ if wanted.keys.is_empty() => problem,
                    _ => problem.help(format!("the keys of this table are {}", listed(wanted.keys))),
                }
            }
            Kind::WrongValue { wanted } => Problem::at(span, format!("expected {}", in_range(&wanted.words))),
            Kind::TooLarge => Problem::at(span, format!("expected a whole number up to {}", i64::MAX)),
            Kind::Own(message) => Problem::at(span, message),
        }
    }
}

/// What to write in the place of a key that its table does not have.
fn meant(key: &str, known: Keys, top: Keys) -> String {
    match (slip::known_elsewhere(key, known), nearest(key, known)) {
        (Some("match"), _) => {
            let example = match key {
                "methods" | "method" => "match = { methods = [\"GET\"] }",
                "headers" => "match = { headers = { x-beta = \"1\" } }",
                "host" | "hosts" | "domain" | "domains" | "server_name" => "match = { host = \"a.example\" }",
                _ => "match = { path = \"/api\" }",
            };
            format!("what requests a route takes stands in `match`: {example}")
        }
        (Some(here), _) => format!("here it is called `{here}`"),
        (None, Some(near)) => format!("did you mean `{near}`?"),
        (None, None) if top.contains(&key) => format!(
            "a key behind a `[table]` belongs to that table: write `{key}` at the top of the file, above the first one"
        ),
        (None, None) => format!("the keys of this table are {}", listed(known)),
    }
}

fn listed(keys: Keys) -> String {
    format!("`{}`", keys.join("`, `"))
}

fn nearest(found: &str, known: Keys) -> Option<&'static str> {
    let distance = |word: &&str| strsim::osa_distance(word, found);
    let near = *known.iter().min_by_key(|word| distance(word))?;
    (distance(&near) <= found.chars().count().max(3) / 3).then_some(near)
}

impl Type {
    fn name(self) -> &'static str {
        match self {
            Self::Text => "a string",
            Self::Integer => "a whole number",
            Self::Float => "a number with a fraction",
            Self::Truth => "true or false",
            Self::Array => "an array",
            Self::Table => "a table",
        }
    }

    fn of(found: Unexpected<'_>) -> Option<Self> {
        match found {
            Unexpected::Str(_) | Unexpected::Char(_) => Some(Self::Text),
            Unexpected::Unsigned(_) | Unexpected::Signed(_) => Some(Self::Integer),
            Unexpected::Float(_) => Some(Self::Float),
            Unexpected::Bool(_) => Some(Self::Truth),
            Unexpected::Seq => Some(Self::Array),
            Unexpected::Map => Some(Self::Table),
            _ => None,
        }
    }
}

/// What a type of Rust calls what it expects, in the words of TOML.
fn in_toml(words: &str) -> &str {
    match words {
        "string" | "path string" => Type::Text.name(),
        "u8" | "u16" | "u32" | "u64" | "i64" | "usize" | "a nonzero u32" | "a nonzero usize" => {
            Type::Integer.name()
        }
        "f64" => "a number",
        "a boolean" => Type::Truth.name(),
        "a sequence" => Type::Array.name(),
        "a map" => Type::Table.name(),
        words if words.starts_with("struct ") => Type::Table.name(),
        words => words,
    }
}

/// The same where the type is right and the value is not.
fn in_range(words: &str) -> String {
    match words {
        "u8" => format!("a whole number from 0 to {}", u8::MAX),
        "u16" => format!("a whole number from 0 to {}", u16::MAX),
        "u32" => format!("a whole number from 0 to {}", u32::MAX),
        "u64" | "usize" => "a whole number, 0 or more".to_owned(),
        "a nonzero u32" => format!("a whole number from 1 to {}", u32::MAX),
        "a nonzero usize" => "a whole number, 1 or more".to_owned(),
        words => words.to_owned(),
    }
}

/// The keys of a table of this type; none if it takes any, or is no table.
pub(super) fn known_keys<'de, T: Deserialize<'de>>() -> Keys {
    // The type is asked by a key that it does not have, and tells those that it has.
    match T::deserialize(de::value::MapDeserializer::new(iter::once(("", "")))) {
        Err(Mistake { kind: Kind::UnknownKey { known, .. }, .. }) => known,
        Ok(_) | Err(_) => &[],
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.kind, formatter)
    }
}

impl std::error::Error for Mistake {}

impl de::Error for Mistake {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(Kind::Own(message.to_string()))
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let wanted = Wanted { words: expected.to_string(), asked: None, keys: &[] };
        Self::new(match Type::of(found) {
            Some(found) => Kind::WrongType { found, wanted },
            None => Kind::WrongValue { wanted },
        })
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let wanted = Wanted { words: expected.to_string(), asked: None, keys: &[] };
        Self::new(Kind::WrongValue { wanted })
    }

    fn unknown_variant(word: &str, known: Keys) -> Self {
        Self::new(Kind::UnknownWord { word: word.to_owned(), known })
    }

    fn unknown_field(key: &str, known: Keys) -> Self {
        Self::new(Kind::UnknownKey { key: key.to_owned(), known })
    }

    fn missing_field(key: &'static str) -> Self {
        Self::new(Kind::MissingKey(key))
    }
}
