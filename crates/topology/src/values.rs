//! How names, values and arguments are written in commands and checkpoints.
//!
//! ```text
//! text       varint length, UTF-8 bytes
//! arguments  varint count, then per entry: text name, value
//! value      tag u8, then
//!            0 null   1 false   2 true   3 int i64   4 float bits u64   5 decimal: scale u8, i32   6 timestamp u64
//!            7 text: varint length, bytes   8 bytes: likewise   9 list: varint count, values   10 table: arguments
//! ```
//! Numbers are little endian. Never: a length believed before its bytes, or recursion deeper than [`DEPTH`].

use base::{Put, Reader};
use model::{Arguments, Damaged, Value};

/// The deepest nesting read; above every depth that a front end can be configured to let in.
const DEPTH: u16 = 256;

pub(crate) fn put_text(out: &mut impl Put, text: &str) {
    out.put_lengthed(text.as_bytes());
}

pub(crate) fn read_text(reader: &mut Reader<'_>) -> Result<String, Damaged> {
    let bytes = reader.lengthed()?;
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| Damaged("a name is not UTF-8"))
}

/// Several truths in one byte, the first one lowest.
pub(crate) fn put_flags(out: &mut impl Put, flags: &[bool]) {
    out.put_u8(flags.iter().rev().fold(0, |byte, flag| byte << 1 | u8::from(*flag)));
}

pub(crate) fn read_flags<const N: usize>(reader: &mut Reader<'_>) -> Result<[bool; N], Damaged> {
    let byte = reader.u8()?;
    if u32::from(byte) >> N != 0 {
        return Err(Damaged("an unknown flag is set"));
    }
    Ok(std::array::from_fn(|bit| byte >> bit & 1 == 1))
}

pub(crate) fn put_arguments<P: Put>(out: &mut P, arguments: &Arguments) {
    out.put_varint(arguments.0.len() as u64);
    for (name, value) in &arguments.0 {
        put_text(out, name);
        put_value(out, value);
    }
}

fn put_value<P: Put>(out: &mut P, value: &Value) {
    match value {
        Value::Null => out.put_u8(0),
        Value::Bool(value) => out.put_u8(1 + u8::from(*value)),
        Value::Int(value) => tagged(out, 3, &value.to_le_bytes()),
        Value::Float(value) => tagged(out, 4, &value.to_bits().to_le_bytes()),
        Value::Decimal(scale, value) => {
            tagged(out, 5, &[*scale]);
            out.put(&value.to_le_bytes());
        }
        Value::Timestamp(value) => tagged(out, 6, &value.to_le_bytes()),
        Value::Text(bytes) => {
            out.put_u8(7);
            out.put_lengthed(bytes);
        }
        Value::Bytes(bytes) => {
            out.put_u8(8);
            out.put_lengthed(bytes);
        }
        Value::List(items) => {
            out.put_u8(9);
            out.put_varint(items.len() as u64);
            items.iter().for_each(|item| put_value(out, item));
        }
        Value::Table(table) => {
            out.put_u8(10);
            put_arguments(out, table);
        }
    }
}

fn tagged(out: &mut impl Put, tag: u8, bytes: &[u8]) {
    out.put_u8(tag);
    out.put(bytes);
}

pub(crate) fn read_arguments(reader: &mut Reader<'_>) -> Result<Arguments, Damaged> {
    arguments_at(reader, 0)
}

fn arguments_at(reader: &mut Reader<'_>, depth: u16) -> Result<Arguments, Damaged> {
    let count = reader.varint()?;
    let mut entries = Vec::new();
    for _ in 0..count {
        let name = read_text(reader)?;
        entries.push((name, value_at(reader, depth)?));
    }
    Ok(Arguments(entries))
}

fn value_at(reader: &mut Reader<'_>, depth: u16) -> Result<Value, Damaged> {
    if depth == DEPTH {
        return Err(Damaged("values are nested too deeply"));
    }
    Ok(match reader.u8()? {
        0 => Value::Null,
        1 => Value::Bool(false),
        2 => Value::Bool(true),
        3 => Value::Int(reader.i64_le()?),
        4 => Value::Float(f64::from_bits(reader.u64_le()?)),
        5 => {
            let scale = reader.u8()?;
            Value::Decimal(scale, reader.i32_le()?)
        }
        6 => Value::Timestamp(reader.u64_le()?),
        7 => Value::Text(reader.lengthed()?.to_vec()),
        8 => Value::Bytes(reader.lengthed()?.to_vec()),
        9 => {
            let count = reader.varint()?;
            let mut items = Vec::new();
            for _ in 0..count {
                items.push(value_at(reader, depth + 1)?);
            }
            Value::List(items)
        }
        10 => Value::Table(arguments_at(reader, depth + 1)?),
        _ => return Err(Damaged("a value of an unknown type")),
    })
}

/// Bytes that are equal exactly for equal arguments, whatever order they were given in.
pub(crate) fn canonical(arguments: &Arguments) -> Vec<u8> {
    let mut entries: Vec<_> = arguments.0.iter().map(|(name, value)| (name, sorted(value))).collect();
    entries.sort_by_key(|(name, _)| *name);
    let mut out = Vec::new();
    for (name, value) in entries {
        put_text(&mut out, name);
        put_value(&mut out, &value);
    }
    out
}

/// Whether two values, or their absence, are the same, names in tables taken in any order.
pub(crate) fn same(a: Option<&Value>, b: Option<&Value>) -> bool {
    let bytes = |value: &Value| {
        let mut out = Vec::new();
        put_value(&mut out, &sorted(value));
        out
    };
    a.map(bytes) == b.map(bytes)
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Table(Arguments(entries)) => {
            let mut entries: Vec<_> =
                entries.iter().map(|(name, value)| (name.clone(), sorted(value))).collect();
            entries.sort_by(|(a, _), (b, _)| a.cmp(b));
            Value::Table(Arguments(entries))
        }
        Value::List(items) => Value::List(items.iter().map(sorted).collect()),
        other => other.clone(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Int),
            (-1e9..1e9).prop_map(Value::Float),
            (any::<u8>(), any::<i32>()).prop_map(|(scale, value)| Value::Decimal(scale, value)),
            any::<u64>().prop_map(Value::Timestamp),
            proptest::collection::vec(any::<u8>(), 0..9).prop_map(Value::Text),
            proptest::collection::vec(any::<u8>(), 0..9).prop_map(Value::Bytes),
        ];
        leaf.prop_recursive(3, 12, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::List),
                proptest::collection::vec(("[a-d]{1,2}", inner), 0..4)
                    .prop_map(|entries| Value::Table(Arguments(entries))),
            ]
        })
    }

    pub(crate) fn any_arguments() -> impl Strategy<Value = Arguments> {
        proptest::collection::vec(("[a-f]{1,3}", any_value()), 0..4).prop_map(Arguments)
    }

    proptest! {
        #[test]
        fn arguments_come_back(arguments in any_arguments()) {
            let mut bytes = Vec::new();
            put_arguments(&mut bytes, &arguments);
            let mut reader = Reader::new(&bytes);
            let read = read_arguments(&mut reader).expect("what was written can be read");
            prop_assert!(reader.is_empty());
            prop_assert_eq!(format!("{read:?}"), format!("{arguments:?}"));
        }

        #[test]
        fn the_order_of_arguments_does_not_matter(value in any_value(), other in any_value()) {
            let one = Arguments(vec![("a".into(), value.clone()), ("b".into(), other.clone())]);
            let two = Arguments(vec![("b".into(), other), ("a".into(), value)]);
            prop_assert_eq!(canonical(&one), canonical(&two));
            prop_assert!(same(Some(&Value::Table(one)), Some(&Value::Table(two))));
        }
    }

    #[test]
    fn example_bytes_decode() {
        let bytes = [1, 1, b'k', 3, 5, 0, 0, 0, 0, 0, 0, 0];
        let expected = Arguments(vec![("k".into(), Value::Int(5))]);
        assert_eq!(read_arguments(&mut Reader::new(&bytes)), Ok(expected));
    }

    #[test]
    fn nesting_has_an_end() {
        let nested: Vec<u8> = [1, 1, b'k'].into_iter().chain([9, 1].repeat(100_000)).collect();
        assert!(read_arguments(&mut Reader::new(&nested)).is_err());
    }
}
