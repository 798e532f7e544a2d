//! How does a value of TOML become a type?
//!
//! As with the deserializer of `toml`, but for its errors: a [`Mistake`] says what kind of mistake it is.

use std::ops::Range;

use serde::{
    de::{self, IntoDeserializer, Visitor},
    forward_to_deserialize_any,
};
use serde_spanned::de::{SpannedDeserializer, is_spanned};
use toml::{
    Spanned,
    de::{DeInteger, DeString, DeValue},
};

use super::mistake::{Keys, Mistake, Type};

/// A value with its place in the file.
#[derive(Clone, Copy)]
pub(super) struct Value<'de>(pub &'de Spanned<DeValue<'de>>);

impl<'de> Value<'de> {
    fn kind(self) -> Type {
        match self.0.get_ref() {
            DeValue::String(_) | DeValue::Datetime(_) => Type::Text,
            DeValue::Integer(_) => Type::Integer,
            DeValue::Float(_) => Type::Float,
            DeValue::Boolean(_) => Type::Truth,
            DeValue::Array(_) => Type::Array,
            DeValue::Table(_) => Type::Table,
        }
    }

    /// Gives the value to a visitor, whatever type it has.
    fn visit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match self.0.get_ref() {
            DeValue::String(text) => visitor.visit_str(text),
            DeValue::Datetime(time) => visitor.visit_string(time.to_string()),
            DeValue::Integer(written) => match number(written) {
                Ok(number) => visitor.visit_i64(number),
                // A type that takes less than the largest number says so itself.
                Err(nearest) => visitor.visit_i64(nearest).and(Err(Mistake::too_large())),
            },
            DeValue::Float(written) => match written.as_str().parse::<f64>() {
                Ok(number)
                    if number.is_finite() || !written.as_str().contains(|c: char| c.is_ascii_digit()) =>
                {
                    visitor.visit_f64(number)
                }
                Ok(_) | Err(_) => Err(de::Error::custom("this number is too large")),
            },
            DeValue::Boolean(truth) => visitor.visit_bool(*truth),
            DeValue::Array(items) => visitor.visit_seq(Items(items.iter())),
            DeValue::Table(table) => visitor.visit_map(Entries { left: table.iter(), value: None }),
        }
    }

    fn asked<V: Visitor<'de>>(self, visitor: V, asked: Type) -> Result<V::Value, Mistake> {
        self.visit(visitor).map_err(|mistake| mistake.at_asked(self.0.span(), asked))
    }
}

/// A whole number; of one that TOML does not have, the nearest that it has.
fn number(written: &DeInteger<'_>) -> Result<i64, i64> {
    let number = i64::from_str_radix(written.as_str(), written.radix());
    number.map_err(|_| if written.as_str().starts_with('-') { i64::MIN } else { i64::MAX })
}

/// Functions of [`de::Deserializer`] that ask for a type.
macro_rules! ask {
    ($($function:ident: $asked:ident)*) => {
        $(fn $function<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
            self.asked(visitor, Type::$asked)
        })*
    };
}

impl<'de> de::Deserializer<'de> for Value<'de> {
    type Error = Mistake;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        self.visit(visitor).map_err(|mistake| mistake.at(self.0.span()))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: Keys,
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        if is_spanned(name) {
            return visitor.visit_map(SpannedDeserializer::new(self, self.0.span()));
        }
        match self.kind() {
            Type::Table => self.asked(visitor, Type::Table),
            // A struct of `serde` would take its values from an array, too.
            found => Err(Mistake::no_table(found, &visitor, fields).at(self.0.span())),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: Keys,
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        match self.0.get_ref() {
            DeValue::String(word) => visitor.visit_enum(word.as_ref().into_deserializer()),
            DeValue::Table(table) if table.len() == 1 => {
                visitor.visit_enum(de::value::MapAccessDeserializer::new(Entries {
                    left: table.iter(),
                    value: None,
                }))
            }
            _ => Err(de::Error::custom("expected a word, or a table with one key")),
        }
        .map_err(|mistake| mistake.at(self.0.span()))
    }

    ask! {
        deserialize_bool: Truth
        deserialize_i8: Integer
        deserialize_i16: Integer
        deserialize_i32: Integer
        deserialize_i64: Integer
        deserialize_u8: Integer
        deserialize_u16: Integer
        deserialize_u32: Integer
        deserialize_u64: Integer
        deserialize_str: Text
        deserialize_string: Text
        deserialize_seq: Array
        deserialize_map: Table
    }

    forward_to_deserialize_any! {
        i128 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any
    }
}

impl<'de> IntoDeserializer<'de, Mistake> for Value<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// The elements of an array.
struct Items<'de>(std::slice::Iter<'de, Spanned<DeValue<'de>>>);

impl<'de> de::SeqAccess<'de> for Items<'de> {
    type Error = Mistake;

    fn next_element_seed<T: de::DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Mistake> {
        let Some(item) = self.0.next() else { return Ok(None) };
        seed.deserialize(Value(item)).map(Some).map_err(|mistake| mistake.at(item.span()))
    }
}

/// The keys and values of a table.
struct Entries<'de, I> {
    left: I,
    /// Of the key that was read last.
    value: Option<&'de Spanned<DeValue<'de>>>,
}

impl<'de, I> de::MapAccess<'de> for Entries<'de, I>
where
    I: Iterator<Item = (&'de Spanned<DeString<'de>>, &'de Spanned<DeValue<'de>>)>,
{
    type Error = Mistake;

    fn next_key_seed<K: de::DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Mistake> {
        let Some((key, value)) = self.left.next() else { return Ok(None) };
        self.value = Some(value);
        let (text, span) = (key.get_ref(), key.span());
        seed.deserialize(Key { text, span: span.clone() }).map(Some).map_err(|mistake| mistake.at(span))
    }

    fn next_value_seed<V: de::DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Mistake> {
        let Some(value) = self.value.take() else {
            return Err(de::Error::custom("a value was asked for before its key"));
        };
        seed.deserialize(Value(value)).map_err(|mistake| mistake.at(value.span()))
    }
}

/// The key of a value.
struct Key<'de> {
    text: &'de str,
    span: Range<usize>,
}

impl<'de> de::Deserializer<'de> for Key<'de> {
    type Error = Mistake;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        visitor.visit_borrowed_str(self.text)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        _: Keys,
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        match is_spanned(name) {
            true => visitor.visit_map(SpannedDeserializer::new(self.text, self.span)),
            false => self.deserialize_any(visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: Keys,
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        visitor.visit_enum(self.text.into_deserializer())
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        seq tuple tuple_struct map identifier ignored_any
    }
}
