//! How does a value of a key become one of our types?
//!
//! For the tables, whose fields name these functions: what `serde` alone would read too loosely, or say too little of.

use std::{collections::BTreeMap, fmt, marker::PhantomData};

use serde::{Deserialize, Deserializer, de};
use toml::Spanned;

use super::mistake::known_keys;

/// Reads a string that says more than a string; `expected` tells the operator what.
pub fn written<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    expected: &'static str,
    read: impl Fn(&str) -> Option<T>,
) -> Result<T, D::Error> {
    written_or(deserializer, expected, |text| read(text).ok_or(None))
}

/// The same; an error may say more than what is expected.
pub(super) fn written_or<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    expected: &'static str,
    read: impl Fn(&str) -> Result<T, Option<&'static str>>,
) -> Result<T, D::Error> {
    struct Visitor<F> {
        expected: &'static str,
        read: F,
    }

    impl<T, F: Fn(&str) -> Result<T, Option<&'static str>>> de::Visitor<'_> for Visitor<F> {
        type Value = T;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str(self.expected)
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
            (self.read)(text).map_err(|why| match why {
                Some(why) => E::custom(why),
                None => E::invalid_value(de::Unexpected::Other("text"), &self),
            })
        }
    }

    deserializer.deserialize_str(Visitor { expected, read })
}

/// Reads a table, which `serde` alone would take as an array of its values, too.
pub fn table<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Table::deserialize(deserializer).map(|table| table.0)
}

/// Reads a table as [`table`] does, where it may be left out.
pub(super) fn optional_table<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    table(deserializer).map(Some)
}

/// The same, with its place.
pub(super) fn optional_spanned_table<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Spanned<T>>, D::Error> {
    let table = Spanned::<Table<T>>::deserialize(deserializer)?;
    Ok(Some(Spanned::new(table.span(), table.into_inner().0)))
}

/// Reads one of several words. Left to itself, `serde` takes `{ word = [] }` too.
pub fn word<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    T::deserialize(de::IntoDeserializer::into_deserializer(String::deserialize(deserializer)?))
}

/// Reads a word as [`word`] does, for a key that may be absent.
pub(super) fn optional_word<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Spanned<T>>, D::Error> {
    struct Word<T>(T);

    impl<'de, T: Deserialize<'de>> Deserialize<'de> for Word<T> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            word(deserializer).map(Self)
        }
    }

    let word = Spanned::<Word<T>>::deserialize(deserializer)?;
    Ok(Some(Spanned::new(word.span(), word.into_inner().0)))
}

/// Reads tables as [`table`] does, in the order they are written.
pub fn tables<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<Spanned<T>>, D::Error> {
    let tables = Vec::<Spanned<Table<T>>>::deserialize(deserializer)?;
    Ok(tables.into_iter().map(|table| Spanned::new(table.span(), table.into_inner().0)).collect())
}

/// Reads tables as [`table`] does, by their names.
pub fn named_tables<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<BTreeMap<Spanned<String>, T>, D::Error> {
    let tables = BTreeMap::<Spanned<String>, Table<T>>::deserialize(deserializer)?;
    Ok(tables.into_iter().map(|(name, table)| (name, table.0)).collect())
}

/// Reads one name, or several in an array.
pub(super) fn names<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Spanned<String>>, D::Error> {
    enum Names {
        One(String),
        Several(Vec<Spanned<String>>),
    }

    impl<'de> Deserialize<'de> for Names {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Visitor;

            impl<'de> de::Visitor<'de> for Visitor {
                type Value = Names;

                fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                    formatter.write_str("a name, or an array of names")
                }

                fn visit_str<E: de::Error>(self, name: &str) -> Result<Names, E> {
                    Ok(Names::One(name.to_owned()))
                }

                fn visit_seq<A: de::SeqAccess<'de>>(self, names: A) -> Result<Names, A::Error> {
                    Vec::deserialize(de::value::SeqAccessDeserializer::new(names)).map(Names::Several)
                }
            }

            deserializer.deserialize_any(Visitor)
        }
    }

    let names = Spanned::<Names>::deserialize(deserializer)?;
    let span = names.span();
    Ok(match names.into_inner() {
        Names::One(name) => vec![Spanned::new(span, name)],
        Names::Several(names) => names,
    })
}

struct Table<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Table<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> de::Visitor<'de> for Visitor<T> {
            type Value = T;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a map")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(de::value::MapAccessDeserializer::new(map))
            }
        }

        let visitor = Visitor(PhantomData);
        match known_keys::<T>() {
            [] => deserializer.deserialize_map(visitor),
            keys => deserializer.deserialize_struct("table", keys, visitor),
        }
        .map(Self)
    }
}
