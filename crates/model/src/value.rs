//! Typed values of headers and arguments, free of any protocol's encoding.

use std::fmt;

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// No value.
    Null,
    /// Truth.
    Bool(bool),
    /// Any integer; its width on the wire does not matter for equality.
    Int(i64),
    /// Any floating-point number.
    Float(f64),
    /// A decimal: scale and unscaled value.
    Decimal(u8, i32),
    /// Seconds since 1970-01-01 UTC.
    Timestamp(u64),
    /// Text or bytes that are usually text.
    Text(Vec<u8>),
    /// Bytes.
    Bytes(Vec<u8>),
    /// Values in order.
    List(Vec<Value>),
    /// Named values.
    Table(Arguments),
}

impl Value {
    /// A text value.
    pub fn text(text: &str) -> Value {
        Value::Text(text.as_bytes().to_vec())
    }

    /// The text, if it is UTF-8 text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::Text(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// The integer, if it is one.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Value::Int(value) => Some(*value),
            _ => None,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null => f.write_str("none"),
            Value::Bool(value) => write!(f, "{value}"),
            Value::Int(value) => write!(f, "{value}"),
            Value::Float(value) => write!(f, "{value}"),
            Value::Decimal(scale, value) => write!(f, "{value}e-{scale}"),
            Value::Timestamp(seconds) => write!(f, "{seconds}"),
            Value::Text(bytes) => write!(f, "'{}'", String::from_utf8_lossy(bytes)),
            Value::Bytes(bytes) => write!(f, "{} bytes", bytes.len()),
            Value::List(items) => write!(f, "a list of {}", items.len()),
            Value::Table(table) => write!(f, "a table of {}", table.0.len()),
        }
    }
}

/// Named values, in the order they were given. Equality does not depend on the order.
#[derive(Clone, Debug, Default)]
pub struct Arguments(pub Vec<(String, Value)>);

impl Arguments {
    /// The value of `name`.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }
}

impl PartialEq for Arguments {
    fn eq(&self, other: &Self) -> bool {
        // Values are compared in one direction only: both would cost twice as much per level of nesting.
        self.0.len() == other.0.len()
            && self.0.iter().all(|(key, value)| other.get(key) == Some(value))
            && other.0.iter().all(|(key, _)| self.get(key).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_does_not_matter_and_deep_nesting_is_compared_in_linear_time() {
        let pair = |a: &str, b: &str| Arguments(vec![(a.into(), Value::Int(1)), (b.into(), Value::Int(1))]);
        assert_eq!(pair("a", "b"), pair("b", "a"));
        assert_ne!(pair("a", "a"), pair("a", "b"));
        assert_ne!(pair("a", "b"), pair("a", "a"));
        let nested = |depth| {
            (0..depth).fold(Value::Null, |inner, _| Value::Table(Arguments(vec![("n".into(), inner)])))
        };
        assert_eq!(nested(60), nested(60));
        assert_ne!(nested(60), nested(61));
    }
}
