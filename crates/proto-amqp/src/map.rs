//! Refusals become reply codes and texts, and errors of the protocol itself are named: one [`Fault`] for both.
//!
//! Codes and texts are RabbitMQ's, because clients and their users branch on both. `properties` maps property blocks
//! for readers of other protocols.

mod properties;

pub use properties::{read_properties, write_properties};

use model::{Entity, Refusal};

use crate::wire::frame::FrameError;
use crate::wire::{Malformed, ReplyCode};

/// Why a channel or connection must be closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The code; it also says whether the connection goes or only the channel.
    pub code: ReplyCode,
    /// The explanation, without the code's name.
    pub text: String,
}

impl Fault {
    /// A fault of this code.
    pub fn new(code: ReplyCode, text: impl Into<String>) -> Fault {
        Fault { code, text: text.into() }
    }
}

impl From<Malformed> for Fault {
    fn from(malformed: Malformed) -> Fault {
        match malformed {
            Malformed::Syntax(text) => Fault::new(ReplyCode::SyntaxError, text),
            Malformed::Text => Fault::new(ReplyCode::FrameError, "Malformed UTF-8 in shortstr"),
            Malformed::Unknown(class, method) => {
                Fault::new(ReplyCode::NotImplemented, format!("unknown method {method} of class {class}"))
            }
        }
    }
}

impl From<FrameError> for Fault {
    fn from(error: FrameError) -> Fault {
        let text = match error {
            FrameError::TooLarge(kind, channel, size) => {
                format!("frame of type {kind} on channel {channel} is too large: {size} octets")
            }
            FrameError::NoEnd(kind, channel, byte) => {
                format!("frame of type {kind} on channel {channel} has an invalid end marker: {byte}")
            }
        };
        Fault::new(ReplyCode::FrameError, text)
    }
}

/// What a refused request on a channel becomes; `vhost` is where its names live.
pub fn fault_of(refusal: &Refusal, vhost: &str) -> Fault {
    use ReplyCode::*;
    let named = |entity: Entity, name: &str| match entity {
        Entity::Vhost => format!("vhost '{name}'"),
        _ => format!("{} '{name}' in vhost '{vhost}'", entity.word()),
    };
    let queue = |name: &str| named(Entity::Queue, name);
    let (code, text) = match refusal {
        Refusal::AuthenticationFailed(text) | Refusal::AccessRefused(text) => (AccessRefused, text.clone()),
        Refusal::NotFound(Entity::Vhost, name) => (NotAllowed, format!("vhost {name} not found")),
        Refusal::NotFound(entity, name) => (NotFound, format!("no {}", named(*entity, name))),
        Refusal::Locked(name) => (
            ResourceLocked,
            format!(
                "cannot obtain exclusive access to locked {}. It could be originally declared on another \
                 connection or the exclusive property value does not match that of the original declaration.",
                queue(name)
            ),
        ),
        Refusal::Inequivalent(entity, name, argument, given, had) => (
            PreconditionFailed,
            format!(
                "inequivalent arg '{argument}' for {}: received '{given}' but current is '{had}'",
                named(*entity, name)
            ),
        ),
        Refusal::InequivalentArgument(entity, name, argument, given, had) => (
            PreconditionFailed,
            format!(
                "inequivalent arg '{argument}' for {}: received {given} but current is {had}",
                named(*entity, name)
            ),
        ),
        Refusal::InUse(entity, name) => (PreconditionFailed, format!("{} in use", named(*entity, name))),
        Refusal::NotEmpty(name) => (PreconditionFailed, format!("{} not empty", queue(name))),
        Refusal::ExclusiveUse(name) => (AccessRefused, format!("{} in exclusive use", queue(name))),
        Refusal::NotAllowed(text) => (AccessRefused, text.clone()),
        Refusal::Invalid(text) | Refusal::Unsupported(text) | Refusal::LimitReached(text) => {
            (PreconditionFailed, text.clone())
        }
        Refusal::NotImplemented(text) => (NotImplemented, text.clone()),
        Refusal::Unavailable(text, _) => (ResourceError, text.clone()),
    };
    Fault::new(code, text)
}

/// What a refused entry into a virtual host becomes: always the end of the connection.
pub fn entry_fault_of(refusal: &Refusal, vhost: &str) -> Fault {
    let fault = fault_of(refusal, vhost);
    match fault.code.is_hard() {
        true => fault,
        false => Fault { code: ReplyCode::NotAllowed, ..fault },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_have_the_codes_that_clients_know() {
        let text = || String::from("text");
        let cases = [
            (Refusal::AccessRefused(text()), 403, "text"),
            (Refusal::NotFound(Entity::Exchange, "e".into()), 404, "no exchange 'e' in vhost '/'"),
            (Refusal::NotFound(Entity::Queue, "q".into()), 404, "no queue 'q' in vhost '/'"),
            (Refusal::InUse(Entity::Exchange, "e".into()), 406, "exchange 'e' in vhost '/' in use"),
            (Refusal::NotEmpty("q".into()), 406, "queue 'q' in vhost '/' not empty"),
            (Refusal::ExclusiveUse("q".into()), 403, "queue 'q' in vhost '/' in exclusive use"),
            (Refusal::Invalid(text()), 406, "text"),
            (Refusal::NotAllowed(text()), 403, "text"),
            (Refusal::Unsupported(text()), 406, "text"),
            (Refusal::LimitReached(text()), 406, "text"),
            (Refusal::NotImplemented(text()), 540, "text"),
            (Refusal::Unavailable(text(), true), 506, "text"),
            (
                Refusal::Inequivalent(Entity::Queue, "q".into(), "durable", "true".into(), "false".into()),
                406,
                "inequivalent arg 'durable' for queue 'q' in vhost '/': received 'true' but current is 'false'",
            ),
        ];
        for (refusal, code, text) in cases {
            let fault = fault_of(&refusal, "/");
            assert_eq!((fault.code.number(), fault.text.as_str()), (code, text));
        }
        assert_eq!(fault_of(&Refusal::Locked("q".into()), "/").code, ReplyCode::ResourceLocked);
        let vhost = entry_fault_of(&Refusal::NotFound(Entity::Vhost, "v".into()), "v");
        assert_eq!((vhost.code, vhost.text.as_str()), (ReplyCode::NotAllowed, "vhost v not found"));
        assert_eq!(entry_fault_of(&Refusal::AccessRefused(text()), "v").code, ReplyCode::NotAllowed);
    }
}
