//! Kinds of values that the configuration has, read so that a wrong one is told in a person's words.
//!
//! In: what TOML offers. Out: the value, or a refusal that says what was expected. Never: the name of a Rust type.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Unexpected, Visitor};

/// A whole number that `T` holds.
#[derive(Clone, Copy, Debug)]
pub struct Number<T>(pub T);

/// A list that says what it is of.
#[derive(Debug)]
pub struct List<T>(pub Vec<T>);

/// What a list is of.
pub trait Listed {
    /// With an example.
    const EXPECTED: &str;
}

impl Listed for String {
    const EXPECTED: &str = r#"a list of addresses, for example ["amqp://127.0.0.1:5672"]"#;
}

struct NumberVisitor<T>(PhantomData<T>);

impl<T: TryFrom<i128>> Visitor<'_> for NumberVisitor<T> {
    type Value = Number<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match size_of::<T>() {
            8.. => f.write_str("a whole number, 0 or more"),
            bytes => write!(f, "a whole number from 0 to {}", (1u64 << (8 * bytes)) - 1),
        }
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Number<T>, E> {
        self.visit_i128(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Number<T>, E> {
        self.visit_i128(value.into())
    }

    fn visit_i128<E: Error>(self, value: i128) -> Result<Number<T>, E> {
        let told = format!("integer `{value}`");
        T::try_from(value).map(Number).map_err(|_| E::invalid_value(Unexpected::Other(&told), &self))
    }

    fn visit_u128<E: Error>(self, value: u128) -> Result<Number<T>, E> {
        self.visit_i128(i128::try_from(value).unwrap_or(i128::MAX))
    }
}

impl<'de, T: TryFrom<i128>> Deserialize<'de> for Number<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberVisitor(PhantomData))
    }
}

struct ListVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de> + Listed> Visitor<'de> for ListVisitor<T> {
    type Value = List<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<List<T>, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(List(list))
    }
}

impl<'de, T: Deserialize<'de> + Listed> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ListVisitor(PhantomData))
    }
}
