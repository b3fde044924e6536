//! Where a consumer of a stream begins: the argument `x-stream-offset` of `basic.consume`.
//!
//! `first`, `last` and `next` by name, an offset as a number, a point in time as a timestamp, or how long ago as a
//! text: a number and one of `Y`, `M` (30 days), `D`, `h`, `m` and `s`.

use model::{Arguments, StreamStart, Value};

use crate::map::Fault;
use crate::wire::ReplyCode;

const ARGUMENT: &str = "x-stream-offset";

/// What the arguments say; `None` where they say nothing.
pub(super) fn start_of(
    arguments: &Arguments,
    queue: &str,
    vhost: &str,
) -> Result<Option<StreamStart>, Fault> {
    let Some(value) = arguments.get(ARGUMENT) else { return Ok(None) };
    match parsed(value) {
        Some(start) => Ok(Some(start)),
        None => {
            let text = format!("invalid arg '{ARGUMENT}' for queue '{queue}' in vhost '{vhost}': {value}");
            Err(Fault::new(ReplyCode::PreconditionFailed, text))
        }
    }
}

fn parsed(value: &Value) -> Option<StreamStart> {
    match value {
        Value::Int(offset) => u64::try_from(*offset).ok().map(StreamStart::Offset),
        Value::Timestamp(seconds) => Some(StreamStart::Timestamp(*seconds)),
        Value::Text(text) => match text.as_slice() {
            b"first" => Some(StreamStart::First),
            b"last" => Some(StreamStart::Last),
            b"next" => Some(StreamStart::Next),
            interval => milliseconds(interval).map(StreamStart::Interval),
        },
        _ => None,
    }
}

fn milliseconds(interval: &[u8]) -> Option<u64> {
    const DAY: u64 = 24 * 3600;
    let (unit, number) = interval.split_last()?;
    let seconds = match unit {
        b'Y' => 365 * DAY,
        b'M' => 30 * DAY,
        b'D' => DAY,
        b'h' => 3600,
        b'm' => 60,
        b's' => 1,
        _ => return None,
    };
    let digits = number.iter().all(u8::is_ascii_digit);
    let number: u64 = std::str::from_utf8(number).ok().filter(|_| digits)?.parse().ok()?;
    number.checked_mul(seconds * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_say_where() {
        let text = |text: &str| Value::text(text);
        let cases = [
            (text("first"), Some(StreamStart::First)),
            (text("last"), Some(StreamStart::Last)),
            (text("next"), Some(StreamStart::Next)),
            (Value::Int(0), Some(StreamStart::Offset(0))),
            (Value::Int(i64::MAX), Some(StreamStart::Offset(i64::MAX as u64))),
            (Value::Timestamp(9), Some(StreamStart::Timestamp(9))),
            (text("30s"), Some(StreamStart::Interval(30_000))),
            (text("5m"), Some(StreamStart::Interval(300_000))),
            (text("1h"), Some(StreamStart::Interval(3_600_000))),
            (text("7D"), Some(StreamStart::Interval(7 * 86_400_000))),
            (text("2M"), Some(StreamStart::Interval(60 * 86_400_000))),
            (text("1Y"), Some(StreamStart::Interval(365 * 86_400_000))),
            (Value::Int(-1), None),
            (Value::Bool(true), None),
            (Value::Float(1.0), None),
            (text(""), None),
            (text("h"), None),
            (text("1"), None),
            (text("-1h"), None),
            (text("+1h"), None),
            (text("1w"), None),
            (text("First"), None),
            (text("99999999999999999999s"), None),
            (text("18446744073709551615s"), None),
        ];
        for (value, start) in cases {
            let arguments = Arguments(vec![(ARGUMENT.into(), value)]);
            assert_eq!(start_of(&arguments, "q", "/").ok().flatten(), start, "{arguments:?}");
        }
        assert_eq!(start_of(&Arguments::default(), "q", "/"), Ok(None));
        let wrong = Arguments(vec![(ARGUMENT.into(), Value::text("sometime"))]);
        let fault = start_of(&wrong, "q", "/").unwrap_err();
        assert_eq!(fault.code, ReplyCode::PreconditionFailed);
        assert!(
            fault.text.starts_with("invalid arg 'x-stream-offset' for queue 'q' in vhost '/': "),
            "{}",
            fault.text
        );
    }
}
