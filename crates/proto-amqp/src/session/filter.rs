//! Which messages of a stream a consumer wants: the arguments `x-stream-filter` and `x-stream-match-unfiltered` of
//! `basic.consume`.
//!
//! A text, or several, each of which a message may have as its header `x-stream-filter-value`; and whether messages
//! without that header are wanted beside them. In: arguments. Out: a filter, or what is wrong. Never: looks at messages.

use model::{Arguments, StreamFilter, Value};

use crate::map::Fault;
use crate::wire::ReplyCode;

const VALUES: &str = "x-stream-filter";
const UNFILTERED: &str = "x-stream-match-unfiltered";
/// Bytes of one value: more would not fit a short text, as which it comes from clients of other protocols.
const VALUE_BYTES_MAX: usize = 255;
const VALUES_MAX: usize = 1000;

/// What the arguments say; `None` where they say nothing.
pub(super) fn filter_of(
    arguments: &Arguments,
    queue: &str,
    vhost: &str,
) -> Result<Option<StreamFilter>, Fault> {
    let fault = |argument: &str, value: &Value| {
        let text = format!("invalid arg '{argument}' for queue '{queue}' in vhost '{vhost}': {value}");
        Fault::new(ReplyCode::PreconditionFailed, text)
    };
    let unfiltered = match arguments.get(UNFILTERED) {
        None => false,
        Some(Value::Bool(unfiltered)) => *unfiltered,
        Some(other) => return Err(fault(UNFILTERED, other)),
    };
    let Some(given) = arguments.get(VALUES) else { return Ok(None) };
    let values = match given {
        Value::List(values) => values.as_slice(),
        one => std::slice::from_ref(one),
    };
    let text = |value: &Value| match value {
        Value::Text(text) if text.len() <= VALUE_BYTES_MAX => Some(text.to_vec()),
        _ => None,
    };
    let values = Some(values).filter(|values| (1..=VALUES_MAX).contains(&values.len()));
    let values = values.and_then(|values| values.iter().map(text).collect());
    match values {
        Some(values) => Ok(Some(StreamFilter { values, unfiltered })),
        None => Err(fault(VALUES, given)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(arguments: &[(&str, Value)]) -> Result<Option<StreamFilter>, String> {
        let arguments = arguments.iter().map(|(name, value)| (name.to_string(), value.clone())).collect();
        filter_of(&Arguments(arguments), "q", "/").map_err(|fault| fault.text)
    }

    #[test]
    fn a_text_or_several_and_whether_others_are_wanted() {
        assert_eq!(filter(&[]), Ok(None));
        let one = filter(&[(VALUES, Value::text("a"))]).unwrap().unwrap();
        assert_eq!((one.values.len(), one.unfiltered), (1, false));
        assert!(one.takes(Some(b"a")) && !one.takes(Some(b"b")) && !one.takes(None));
        let both = Value::List(vec![Value::text("a"), Value::text("b")]);
        let two = filter(&[(VALUES, both), (UNFILTERED, Value::Bool(true))]).unwrap().unwrap();
        assert!(two.takes(Some(b"a")) && two.takes(Some(b"b")) && two.takes(None) && !two.takes(Some(b"c")));
        assert_eq!(filter(&[(UNFILTERED, Value::Bool(true))]), Ok(None), "nothing is filtered then");
    }

    #[test]
    fn what_is_no_filter_is_refused_by_name() {
        for (name, value) in [
            (VALUES, Value::Int(1)),
            (VALUES, Value::List(Vec::new())),
            (VALUES, Value::List(vec![Value::text("a"), Value::Bool(true)])),
            (VALUES, Value::text(&"x".repeat(256))),
            (VALUES, Value::List(vec![Value::text("a"); 1001])),
            (UNFILTERED, Value::text("true")),
        ] {
            let refused = filter(&[(name, value)]).unwrap_err();
            let text = format!("invalid arg '{name}' for queue 'q' in vhost '/': ");
            assert!(refused.starts_with(&text), "{refused}");
        }
    }
}
