//! The bindings of one headers exchange and when they match.
//!
//! In: bindings with their arguments, and a message's headers. Out: the destinations of those that match. `x-match` says
//! how: `all` (the default) or `any` of the arguments, without those that begin with `x-`; `all-with-x` and `any-with-x`
//! count these too. An argument without a value asks for the header's presence only. Never: an index, since any
//! combination of headers may be asked for.

use std::collections::BTreeMap;

use model::{Arguments, Refusal, Value};

use crate::BindingId;
use crate::fan::Leads;

/// One binding, ready to be matched.
#[derive(Clone, Debug)]
pub(crate) struct Matcher {
    pub(crate) to: Leads,
    any: bool,
    wanted: Vec<(String, Value)>,
}

/// The bindings in the order they were made.
pub(crate) type Matchers = BTreeMap<BindingId, Matcher>;

/// Refuses an `x-match` that means nothing.
pub(crate) fn check(arguments: &Arguments) -> Result<(), Refusal> {
    match arguments.get("x-match") {
        None => Ok(()),
        Some(value) if matches!(value.as_str(), Some("all" | "any" | "all-with-x" | "any-with-x")) => Ok(()),
        Some(value) => Err(Refusal::Invalid(format!(
            "invalid binding argument 'x-match': {value} is not one of 'all', 'any', 'all-with-x', 'any-with-x'"
        ))),
    }
}

impl Matcher {
    pub(crate) fn new(to: Leads, arguments: &Arguments) -> Matcher {
        let mode = arguments.get("x-match").and_then(Value::as_str).unwrap_or("all");
        let with_x = mode.ends_with("-with-x");
        let counts = |name: &str| name != "x-match" && (with_x || !name.starts_with("x-"));
        let wanted = arguments.0.iter().filter(|(name, _)| counts(name)).cloned().collect();
        Matcher { to, any: mode.starts_with("any"), wanted }
    }

    pub(crate) fn matches(&self, headers: &Arguments) -> bool {
        let mut each = self.wanted.iter().map(|(name, wanted)| {
            headers.get(name).is_some_and(|found| *wanted == Value::Null || same(wanted, found))
        });
        if self.any { each.any(|matched| matched) } else { each.all(|matched| matched) }
    }
}

/// Equality of values, not of how they were written: text and bytes, integers and whole floats are comparable.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Text(a) | Value::Bytes(a), Value::Text(b) | Value::Bytes(b)) => a == b,
        (Value::Float(a), b) | (b, Value::Float(a)) => float_is(*a, b),
        (a, b) => match (integer(a), integer(b)) {
            (Some(a), Some(b)) => a == b,
            _ => a == b,
        },
    }
}

fn float_is(a: f64, b: &Value) -> bool {
    match b {
        Value::Float(b) => a == *b,
        // Every whole f64 below 2^63 converts exactly; a saturated conversion does not come back equal.
        b => integer(b).is_some_and(|b| a.fract() == 0.0 && a as i128 == b),
    }
}

fn integer(value: &Value) -> Option<i128> {
    match value {
        Value::Int(value) => Some(i128::from(*value)),
        Value::Timestamp(value) => Some(i128::from(*value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ExchangeId;

    fn table(entries: &[(&str, Value)]) -> Arguments {
        Arguments(entries.iter().map(|(name, value)| (name.to_string(), value.clone())).collect())
    }

    fn matches(binding: &[(&str, Value)], headers: &[(&str, Value)]) -> bool {
        let to = Leads::Exchange(ExchangeId(1));
        Matcher::new(to, &table(binding)).matches(&table(headers))
    }

    #[test]
    fn all_any_and_their_forms_with_x() {
        let mode = |mode| ("x-match", Value::text(mode));
        let (a, b, x) = (("a", Value::Int(1)), ("b", Value::Int(2)), ("x-a", Value::Int(3)));
        let both = [a.clone(), b.clone()];
        assert!(matches(&both, &both), "all is the default");
        assert!(!matches(&[mode("all"), a.clone(), b.clone()], &both[..1]));
        assert!(matches(&[mode("any"), a.clone(), b.clone()], &both[..1]));
        assert!(!matches(&[mode("any"), a.clone()], &both[1..]));
        assert!(matches(&[mode("all"), a.clone(), x.clone()], &both), "x- does not count");
        assert!(!matches(&[mode("any"), x.clone()], std::slice::from_ref(&x)));
        assert!(!matches(&[mode("all-with-x"), a.clone(), x.clone()], &both));
        assert!(matches(&[mode("any-with-x"), b, x.clone()], &[x]));
    }

    #[test]
    fn nothing_wanted_is_all_but_not_any() {
        assert!(matches(&[], &[]));
        assert!(!matches(&[("x-match", Value::text("any"))], &[("a", Value::Int(1))]));
    }

    #[test]
    fn no_value_asks_for_presence() {
        assert!(matches(&[("a", Value::Null)], &[("a", Value::Bool(false))]));
        assert!(!matches(&[("a", Value::Null)], &[("b", Value::Null)]));
        assert!(!matches(&[("a", Value::Int(0))], &[("a", Value::Null)]));
    }

    #[test]
    fn values_are_compared_not_their_encodings() {
        assert!(same(&Value::text("a"), &Value::Bytes(b"a".to_vec())));
        assert!(same(&Value::Int(2), &Value::Float(2.0)));
        assert!(same(&Value::Timestamp(7), &Value::Int(7)));
        assert!(!same(&Value::Int(2), &Value::Float(2.5)));
        assert!(!same(&Value::Int(1), &Value::Bool(true)));
        assert!(!same(&Value::text("1"), &Value::Int(1)));
    }
}
