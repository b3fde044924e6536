//! Why a request was not granted: a closed list. Each front end has one table from here to its own codes.

/// What a refusal is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entity {
    /// An exchange.
    Exchange,
    /// A queue or stream.
    Queue,
    /// A virtual host.
    Vhost,
}

impl Entity {
    /// The word for messages.
    pub fn word(self) -> &'static str {
        match self {
            Entity::Exchange => "exchange",
            Entity::Queue => "queue",
            Entity::Vhost => "vhost",
        }
    }
}

/// The client asked for what it may not or cannot have. Definite unless said otherwise: nothing happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The name or password is wrong, or this user may not come from there.
    AuthenticationFailed(String),
    /// The user lacks a permission, or the name is reserved.
    AccessRefused(String),
    /// No such thing.
    NotFound(Entity, String),
    /// Another connection holds this queue exclusively.
    Locked(String),
    /// It exists with another property: what, its name, the argument, what was given, what it has.
    Inequivalent(Entity, String, &'static str, String, String),
    /// It exists with another optional argument (`x-…`): what, its name, the argument, given, had.
    InequivalentArgument(Entity, String, String, String, String),
    /// Deleting only if unused, and it is used.
    InUse(Entity, String),
    /// Deleting only if empty, and it is not.
    NotEmpty(String),
    /// A consumer asked to be alone and is not, or the one there is alone.
    ExclusiveUse(String),
    /// An argument's value or combination is wrong; the text names it.
    Invalid(String),
    /// Understood but never allowed, such as deleting the default exchange.
    NotAllowed(String),
    /// An exchange type or feature that does not exist here.
    Unsupported(String),
    /// An operation that this kind of queue does not have.
    NotImplemented(String),
    /// A count or size is at its configured bound.
    LimitReached(String),
    /// The group cannot take this now (disk, leadership); `true` when it may still happen later.
    Unavailable(String, bool),
}
