//! What the arguments of a stream mean and may hold, and the configurations they come to.
//!
//! In: a declaration. Out: nothing, or a refusal that names the argument; configurations of the topic. Without a bound
//! on age or size a stream keeps everything.

use std::collections::BTreeMap;

use model::{Arguments, QueueDeclaration, Refusal, Value};

use crate::arguments::{Meaning, Meaning::*, check_lasting, check_value, queue_type};

const KNOWN: [(&str, Meaning); 7] = [
    ("x-queue-type", OneOf(&["stream"])),
    ("x-queue-leader-locator", OneOf(&["client-local", "balanced", "least-leaders", "random"])),
    ("x-initial-cluster-size", AtLeast(1)),
    ("x-max-length-bytes", AtLeast(0)),
    ("x-max-age", Age),
    ("x-stream-max-segment-size-bytes", Between(0, 3_000_000_000)),
    ("x-stream-filter-size-bytes", Between(16, 255)),
];

/// Whether the argument means something to a stream.
pub(crate) fn belongs(name: &str) -> bool {
    KNOWN.iter().any(|(known, _)| *known == name)
}

/// Refuses what a stream cannot be declared with.
pub(crate) fn check_stream(declaration: &QueueDeclaration) -> Result<(), Refusal> {
    check_lasting("stream", declaration)?;
    KNOWN.iter().try_for_each(|(name, meaning)| match declaration.arguments.get(name) {
        Some(value) => check_value(name, *meaning, value),
        None => Ok(()),
    })
}

/// Milliseconds of an age such as `7D`: a count of years, months, days, hours, minutes or seconds.
pub(crate) fn age_ms(text: &str) -> Option<i64> {
    let unit = text.chars().last()?;
    let count: i64 = text.strip_suffix(unit)?.parse().ok()?;
    let seconds = match unit {
        'Y' => 365 * 86_400,
        'M' => 30 * 86_400,
        'D' => 86_400,
        'h' => 3_600,
        'm' => 60,
        's' => 1,
        _ => return None,
    };
    let digits = text.len() - 1;
    let plain = text.bytes().take(digits).all(|byte| byte.is_ascii_digit());
    if plain && count > 0 { count.checked_mul(seconds * 1000) } else { None }
}

/// The configurations of the topic of a stream that was declared with these; none where it was not declared so.
pub(crate) fn configs_of(arguments: &Arguments) -> BTreeMap<String, String> {
    let mut configs = BTreeMap::new();
    if queue_type(arguments) != "stream" {
        return configs;
    }
    let age = arguments.get("x-max-age").and_then(Value::as_str).and_then(age_ms);
    configs.insert("retention.ms".to_owned(), age.unwrap_or(-1).to_string());
    let number = |name| arguments.get(name).and_then(Value::as_int);
    if let Some(bytes) = number("x-max-length-bytes") {
        configs.insert("retention.bytes".to_owned(), bytes.to_string());
    }
    if let Some(bytes) = number("x-stream-max-segment-size-bytes") {
        let bytes = bytes.clamp(14, i64::from(i32::MAX));
        configs.insert("segment.bytes".to_owned(), bytes.to_string());
    }
    configs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::configs::check_config;

    fn table(entries: &[(&str, Value)]) -> Arguments {
        Arguments(entries.iter().map(|(name, value)| (name.to_string(), value.clone())).collect())
    }

    fn declared(entries: &[(&str, Value)]) -> QueueDeclaration {
        let kind = ("x-queue-type", Value::text("stream"));
        QueueDeclaration {
            name: "s".into(),
            passive: false,
            durable: true,
            exclusive: false,
            auto_delete: false,
            arguments: table(&[&[kind], entries].concat()),
        }
    }

    #[test]
    fn ages_have_a_count_and_a_unit() {
        for (text, expected) in [
            ("7D", Some(7 * 86_400_000)),
            ("24h", Some(86_400_000)),
            ("1Y", Some(365 * 86_400_000)),
            ("2M", Some(60 * 86_400_000)),
            ("5m", Some(300_000)),
            ("1s", Some(1000)),
            ("0s", None),
            ("-1s", None),
            ("+1s", None),
            ("s", None),
            ("", None),
            ("7", None),
            ("7d", None),
            ("1 D", None),
            ("1é", None),
            ("9223372036854775807Y", None),
            ("99999999999999999999s", None),
        ] {
            assert_eq!(age_ms(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_stream_is_durable_shared_and_named() {
        assert_eq!(check_stream(&declared(&[])), Ok(()));
        for wrong in [
            QueueDeclaration { durable: false, ..declared(&[]) },
            QueueDeclaration { exclusive: true, ..declared(&[]) },
            QueueDeclaration { auto_delete: true, ..declared(&[]) },
            QueueDeclaration { name: String::new(), ..declared(&[]) },
        ] {
            assert!(matches!(check_stream(&wrong), Err(Refusal::Invalid(_))), "{wrong:?}");
        }
    }

    #[test]
    fn arguments_of_streams_are_checked() {
        for (name, good, bad) in [
            ("x-max-age", Value::text("7D"), Value::text("seven days")),
            ("x-max-age", Value::text("1s"), Value::Int(1)),
            ("x-max-length-bytes", Value::Int(0), Value::Int(-1)),
            ("x-stream-max-segment-size-bytes", Value::Int(500_000_000), Value::Int(3_000_000_001)),
            ("x-stream-filter-size-bytes", Value::Int(16), Value::Int(256)),
            ("x-queue-leader-locator", Value::text("balanced"), Value::text("worst")),
        ] {
            assert_eq!(check_stream(&declared(&[(name, good)])), Ok(()), "{name}");
            let refusal = check_stream(&declared(&[(name, bad)]));
            assert!(matches!(&refusal, Err(Refusal::Invalid(text)) if text.contains(name)), "{refusal:?}");
        }
    }

    #[test]
    fn arguments_become_configurations() {
        let all = declared(&[
            ("x-max-age", Value::text("1D")),
            ("x-max-length-bytes", Value::Int(7)),
            ("x-stream-max-segment-size-bytes", Value::Int(3_000_000_000)),
        ]);
        let configs = configs_of(&all.arguments);
        let text = |name| configs.get(name).map(String::as_str);
        assert_eq!(text("retention.ms"), Some("86400000"));
        assert_eq!(text("retention.bytes"), Some("7"));
        assert_eq!(text("segment.bytes"), Some("2147483647"));
        assert!(configs.iter().all(|(name, value)| check_config(name, value).is_ok()));
        let plain = configs_of(&declared(&[]).arguments);
        assert_eq!(plain, BTreeMap::from([("retention.ms".to_owned(), "-1".to_owned())]));
        assert_eq!(configs_of(&Arguments::default()), BTreeMap::new());
    }
}
