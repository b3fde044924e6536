//! What the optional arguments of a queue mean, may hold, and which must agree when it is declared again.
//!
//! In: a declaration's arguments. Out: nothing, or a refusal that names the argument. An argument that would change what
//! happens to messages in a way that does not exist here is refused, since to ignore it would lose messages or keep
//! them; one that only tunes how another broker stores or places a queue is checked, kept and has no effect; an unknown
//! one is kept.

use model::{Arguments, Entity, QueueDeclaration, Refusal, Value};

use crate::QueueKind;
use crate::stream_arguments::{age_ms, belongs, check_stream};
use crate::values::same;

use Meaning::*;

/// What becomes of an argument.
#[derive(Clone, Copy)]
pub(crate) enum Meaning {
    /// Text that is one of these.
    OneOf(&'static [&'static str]),
    /// Any text.
    Text,
    /// An integer of at least this much.
    AtLeast(i64),
    /// An integer between these.
    Between(i64, i64),
    /// Not built, unless it is given a value that asks for nothing.
    Missing(Option<Nothing>),
    /// Belongs to streams and to no queue.
    OfStreams,
    /// A count and a unit of time.
    Age,
}

/// A value that asks for what happens anyway.
#[derive(Clone, Copy)]
pub(crate) enum Nothing {
    False,
    Number(i64),
}

const KNOWN: [(&str, Meaning); 32] = [
    ("x-queue-type", OneOf(&["classic", "quorum", "stream"])),
    ("x-queue-mode", OneOf(&["default", "lazy"])),
    ("x-queue-version", Between(1, 2)),
    ("x-queue-master-locator", Text),
    ("x-queue-leader-locator", OneOf(&["client-local", "balanced", "least-leaders", "random"])),
    ("x-quorum-initial-group-size", AtLeast(1)),
    ("x-initial-cluster-size", AtLeast(1)),
    ("x-max-in-memory-length", AtLeast(0)),
    ("x-max-in-memory-bytes", AtLeast(0)),
    ("x-message-ttl", Missing(None)),
    ("x-expires", Missing(None)),
    ("x-max-length", Missing(None)),
    ("x-max-length-bytes", Missing(None)),
    ("x-overflow", Missing(None)),
    ("x-dead-letter-exchange", Missing(None)),
    ("x-dead-letter-routing-key", Missing(None)),
    ("x-dead-letter-strategy", Missing(None)),
    ("x-max-priority", Missing(None)),
    ("x-single-active-consumer", Missing(Some(Nothing::False))),
    ("x-delivery-limit", Missing(Some(Nothing::Number(-1)))),
    ("x-consumer-timeout", Missing(None)),
    ("x-consumer-disconnected-timeout", Missing(None)),
    ("x-delayed-retry-type", Missing(None)),
    ("x-delayed-retry-min", Missing(None)),
    ("x-delayed-retry-max", Missing(None)),
    ("x-name-prefix", Missing(None)),
    ("x-max-age", OfStreams),
    ("x-stream-max-segment-size-bytes", OfStreams),
    ("x-stream-filter-size-bytes", OfStreams),
    ("x-stream-filter", OfStreams),
    ("x-stream-offset", OfStreams),
    ("x-stream-match-unfiltered", OfStreams),
];

/// Refuses what a new queue cannot be declared with.
pub(crate) fn check(declaration: &QueueDeclaration) -> Result<(), Refusal> {
    let is_stream = queue_type(&declaration.arguments) == "stream";
    for (name, meaning) in KNOWN {
        match declaration.arguments.get(name) {
            Some(_) if is_stream && !belongs(name) => {
                let text = format!("invalid argument '{name}': it does not belong to streams");
                return Err(Refusal::Invalid(text));
            }
            Some(value) if !is_stream => check_value(name, meaning, value)?,
            _ => (),
        }
    }
    match queue_type(&declaration.arguments) {
        "quorum" => check_lasting("quorum", declaration),
        "stream" => check_stream(declaration),
        _ => Ok(()),
    }
}

/// What a declaration with these arguments makes.
pub(crate) fn kind_of(arguments: &Arguments) -> QueueKind {
    if queue_type(arguments) == "stream" { QueueKind::Stream } else { QueueKind::Queue }
}

pub(crate) fn check_value(name: &str, meaning: Meaning, value: &Value) -> Result<(), Refusal> {
    let fits = match meaning {
        OneOf(allowed) => value.as_str().is_some_and(|text| allowed.contains(&text)),
        Text => value.as_str().is_some(),
        AtLeast(least) => value.as_int().is_some_and(|number| number >= least),
        Between(least, most) => value.as_int().is_some_and(|number| (least..=most).contains(&number)),
        Age => value.as_str().is_some_and(|text| age_ms(text).is_some()),
        Missing(nothing) => {
            return if nothing.is_some_and(|nothing| nothing.is(value)) {
                Ok(())
            } else {
                Err(Refusal::Unsupported(format!("queue argument '{name}' is not supported yet")))
            };
        }
        OfStreams => {
            return Err(Refusal::Invalid(format!("invalid argument '{name}': it belongs to streams")));
        }
    };
    if fits {
        return Ok(());
    }
    Err(Refusal::Invalid(format!("invalid argument '{name}': {value} is not {}", meaning.expected())))
}

impl Meaning {
    fn expected(self) -> String {
        match self {
            OneOf(allowed) => format!("one of '{}'", allowed.join("', '")),
            AtLeast(least) => format!("an integer of at least {least}"),
            Between(least, most) => format!("an integer from {least} to {most}"),
            Age => "a count followed by one of Y, M, D, h, m, s".into(),
            Text | Missing(_) | OfStreams => "text".into(),
        }
    }
}

impl Nothing {
    fn is(self, value: &Value) -> bool {
        match self {
            Nothing::False => *value == Value::Bool(false),
            Nothing::Number(number) => value.as_int() == Some(number),
        }
    }
}

pub(crate) fn queue_type(arguments: &Arguments) -> &str {
    arguments.get("x-queue-type").and_then(Value::as_str).unwrap_or("classic")
}

/// Refuses to declare a queue of this type otherwise than for good: with a name, durable, for everybody, and until it is
/// deleted.
pub(crate) fn check_lasting(kind: &str, declaration: &QueueDeclaration) -> Result<(), Refusal> {
    let wrong = if declaration.name.is_empty() {
        "be named by the broker"
    } else if declaration.exclusive {
        "be exclusive"
    } else if declaration.auto_delete {
        "be deleted automatically"
    } else if !declaration.durable {
        "be other than durable"
    } else {
        return Ok(());
    };
    Err(Refusal::Invalid(format!("queue '{}': a queue of type {kind} cannot {wrong}", declaration.name)))
}

/// Refuses a second declaration of a queue whose known arguments differ. Others are not compared: clients that disagree
/// about an argument that means nothing get along.
pub(crate) fn check_same_queue(name: &str, had: &Arguments, given: &Arguments) -> Result<(), Refusal> {
    // A queue without a type is a classic one.
    let typed = |arguments: &Arguments| {
        arguments.get("x-queue-type").filter(|value| value.as_str() != Some("classic")).cloned()
    };
    if !same(typed(had).as_ref(), typed(given).as_ref()) {
        return Err(inequivalent(Entity::Queue, name, "x-queue-type", had, given));
    }
    let others = KNOWN.iter().map(|(argument, _)| *argument).filter(|argument| *argument != "x-queue-type");
    check_same(Entity::Queue, name, others, had, given)
}

/// Refuses a second declaration of an exchange with another alternate.
pub(crate) fn check_same_exchange(name: &str, had: &Arguments, given: &Arguments) -> Result<(), Refusal> {
    check_same(Entity::Exchange, name, ["alternate-exchange"], had, given)
}

fn check_same<'a>(
    entity: Entity,
    name: &str,
    compared: impl IntoIterator<Item = &'a str>,
    had: &Arguments,
    given: &Arguments,
) -> Result<(), Refusal> {
    match compared.into_iter().find(|argument| !same(had.get(argument), given.get(argument))) {
        Some(argument) => Err(inequivalent(entity, name, argument, had, given)),
        None => Ok(()),
    }
}

fn inequivalent(entity: Entity, name: &str, argument: &str, had: &Arguments, given: &Arguments) -> Refusal {
    let text = |arguments: &Arguments| arguments.get(argument).unwrap_or(&Value::Null).to_string();
    Refusal::InequivalentArgument(entity, name.into(), argument.into(), text(given), text(had))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(arguments: &[(&str, Value)]) -> QueueDeclaration {
        QueueDeclaration {
            name: "q".into(),
            passive: false,
            durable: true,
            exclusive: false,
            auto_delete: false,
            arguments: table(arguments),
        }
    }

    fn table(entries: &[(&str, Value)]) -> Arguments {
        Arguments(entries.iter().map(|(name, value)| (name.to_string(), value.clone())).collect())
    }

    #[test]
    fn inert_arguments_are_taken_and_wrong_ones_named() {
        for (name, good, bad) in [
            ("x-queue-type", Value::text("quorum"), Value::text("fast")),
            ("x-queue-mode", Value::text("lazy"), Value::Int(1)),
            ("x-queue-version", Value::Int(2), Value::Int(3)),
            ("x-queue-master-locator", Value::text("anything"), Value::Bool(true)),
            ("x-queue-leader-locator", Value::text("balanced"), Value::text("worst")),
            ("x-quorum-initial-group-size", Value::Int(3), Value::Int(0)),
            ("x-max-in-memory-length", Value::Int(0), Value::Int(-1)),
        ] {
            assert_eq!(check(&declared(&[(name, good)])), Ok(()), "{name}");
            let refusal = check(&declared(&[(name, bad)]));
            assert!(matches!(&refusal, Err(Refusal::Invalid(text)) if text.contains(name)), "{refusal:?}");
        }
        assert_eq!(check(&declared(&[("x-my-own", Value::Int(1))])), Ok(()));
    }

    #[test]
    fn what_is_not_built_is_refused_by_name() {
        for (name, meaning) in KNOWN {
            if matches!(meaning, Missing(_)) {
                let refusal = check(&declared(&[(name, Value::Int(7))]));
                assert!(
                    matches!(&refusal, Err(Refusal::Unsupported(text)) if text.contains(name)),
                    "{refusal:?}"
                );
            }
        }
        assert_eq!(check(&declared(&[("x-single-active-consumer", Value::Bool(false))])), Ok(()));
    }

    #[test]
    fn what_belongs_to_a_queue_is_no_stream_s_and_the_other_way_round() {
        let stream = ("x-queue-type", Value::text("stream"));
        for (name, value) in [("x-max-length", Value::Int(1)), ("x-expires", Value::Int(1))] {
            let refusal = check(&declared(&[stream.clone(), (name, value)]));
            assert!(matches!(&refusal, Err(Refusal::Invalid(text)) if text.contains(name)), "{refusal:?}");
        }
        let refusal = check(&declared(&[("x-max-age", Value::text("1D"))]));
        assert!(matches!(&refusal, Err(Refusal::Invalid(text)) if text.contains("x-max-age")), "{refusal:?}");
        assert_eq!(check(&declared(&[stream.clone(), ("x-max-age", Value::text("1D"))])), Ok(()));
        assert_eq!(check(&declared(&[stream, ("x-my-own", Value::Int(1))])), Ok(()));
    }

    #[test]
    fn a_quorum_queue_is_durable_and_shared() {
        let quorum = || declared(&[("x-queue-type", Value::text("quorum"))]);
        assert!(check(&QueueDeclaration { durable: false, ..quorum() }).is_err());
        assert!(check(&QueueDeclaration { exclusive: true, ..quorum() }).is_err());
        assert!(check(&QueueDeclaration { auto_delete: true, ..quorum() }).is_err());
        assert!(check(&QueueDeclaration { name: String::new(), ..quorum() }).is_err());
    }

    #[test]
    fn classic_is_what_a_queue_without_a_type_is() {
        let (none, classic) = (table(&[]), table(&[("x-queue-type", Value::text("classic"))]));
        let quorum = table(&[("x-queue-type", Value::text("quorum"))]);
        assert_eq!(check_same_queue("q", &none, &classic), Ok(()));
        assert_eq!(check_same_queue("q", &classic, &none), Ok(()));
        assert_eq!(
            check_same_queue("q", &none, &quorum),
            Err(Refusal::InequivalentArgument(
                Entity::Queue,
                "q".into(),
                "x-queue-type".into(),
                "'quorum'".into(),
                "none".into()
            ))
        );
    }

    #[test]
    fn known_arguments_must_agree_and_others_need_not() {
        let lazy = table(&[("x-queue-mode", Value::text("lazy"))]);
        assert!(check_same_queue("q", &lazy, &table(&[])).is_err());
        assert!(check_same_queue("q", &table(&[]), &lazy).is_err());
        assert_eq!(check_same_queue("q", &table(&[("x-own", Value::Int(1))]), &table(&[])), Ok(()));
    }
}
