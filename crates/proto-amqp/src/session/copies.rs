//! Further routing keys that a sender names in the headers `CC` and `BCC`, each a list of texts.
//!
//! In: a property block whose form was checked. Out: the keys, and the block without `BCC`, which no receiver sees.
//! What of a list is no text names nothing.

use base::{Put, Reader};
use model::Value;

use crate::map::Fault;
use crate::wire::{Malformed, Properties, ReplyCode, table};

/// The keys of a message besides its own, and its block as receivers get it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Copies {
    pub keys: Vec<String>,
    pub block: Vec<u8>,
}

/// Whether one of the fields of a headers table is about copies.
pub(super) fn are_named(fields: &[u8]) -> bool {
    let mut reader = Reader::new(fields);
    while !reader.is_empty() {
        let Ok(name) = table::short(&mut reader) else { return false };
        if is_one(name) {
            return true;
        }
        if table::check_value(&mut reader, u8::MAX).is_err() {
            return false;
        }
    }
    false
}

fn is_one(name: &[u8]) -> bool {
    matches!(name, b"CC" | b"BCC")
}

/// Takes the keys out of a block.
pub(super) fn copies_of(block: &[u8], nesting_max: u8) -> Result<Copies, Fault> {
    let properties = Properties::decode(block)?;
    let mut reader = Reader::new(properties.headers.unwrap_or(&[]));
    let mut copies = Copies::default();
    let mut fields = Vec::with_capacity(reader.rest().len());
    while !reader.is_empty() {
        let from = reader.rest();
        let name = table::short(&mut reader)?;
        table::check_value(&mut reader, u8::MAX)?;
        let field = &from[..from.len() - reader.rest().len()];
        if is_one(name) {
            add_keys(name, field, nesting_max, &mut copies.keys)?;
        }
        if name != b"BCC" {
            fields.put(field);
        }
    }
    Properties { headers: Some(&fields), ..properties }.encode(&mut copies.block);
    Ok(copies)
}

fn add_keys(name: &[u8], field: &[u8], nesting_max: u8, keys: &mut Vec<String>) -> Result<(), Fault> {
    let fields = table::decode_fields(field, nesting_max)?;
    let value = fields.0.into_iter().next().ok_or(Malformed::Syntax("a header without a value"))?.1;
    let Value::List(items) = value else {
        let name = String::from_utf8_lossy(name);
        let text = format!("invalid message: header '{name}' is {value}, not a list of routing keys");
        return Err(Fault::new(ReplyCode::PreconditionFailed, text));
    };
    keys.extend(items.iter().filter_map(Value::as_str).map(str::to_owned));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::properties;

    fn list(texts: &[&str]) -> Value {
        Value::List(texts.iter().map(|text| Value::text(text)).collect())
    }

    fn taken(headers: &[(&str, Value)]) -> Result<Copies, Fault> {
        copies_of(&properties::block_of(headers), 8)
    }

    #[test]
    fn keys_are_gathered_and_blind_ones_do_not_travel() {
        let other = ("a", Value::Bool(true));
        let open = ("CC", list(&["x", "y"]));
        let copies = taken(&[other.clone(), ("BCC", list(&["z"])), open.clone()]).unwrap();
        assert_eq!(copies.keys, ["z", "x", "y"]);
        assert_eq!(copies.block, properties::block_of(&[other, open]));
        let mixed = Value::List(vec![Value::Int(5), Value::text("x"), Value::Text(vec![0xff])]);
        assert_eq!(taken(&[("CC", mixed)]).unwrap().keys, ["x"]);
        assert_eq!(taken(&[("cc", list(&["x"]))]).unwrap().keys, [""; 0]);
    }

    #[test]
    fn anything_but_a_list_is_refused() {
        for name in ["CC", "BCC"] {
            let fault = taken(&[(name, Value::text("x"))]).unwrap_err();
            assert_eq!(fault.code, ReplyCode::PreconditionFailed);
            assert!(fault.text.contains(&format!("'{name}'")), "{}", fault.text);
        }
    }

    #[test]
    fn only_the_two_names_mean_copies() {
        let named = |name| {
            let block = properties::block_of(&[("first", Value::Int(1)), (name, list(&[]))]);
            are_named(Properties::decode(&block).unwrap().headers.unwrap())
        };
        assert!(named("CC") && named("BCC"));
        assert!(!named("cc") && !named("C"));
        assert!(!are_named(&[]) && !are_named(b"\x05C") && !are_named(b"\x01a?"));
    }
}
