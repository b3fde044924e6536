//! Bytes and frames, methods, tables and content headers of AMQP 0-9-1, in both directions.
//!
//! In: borrowed bytes. Out: borrowed views of them, or bytes appended to a buffer. Nothing here knows of
//! connections, allocates for a declared length or panics on bytes. Clients (load generator, simulator) use it too.

pub mod content;
pub mod frame;
pub mod method;
pub mod properties;
pub mod reply;
pub mod table;

pub use content::{ContentHeader, put_content};
pub use frame::{Frame, FrameError, PROTOCOL_HEADER, next_frame};
pub use method::Method;
pub use properties::Properties;
pub use reply::ReplyCode;

use base::Short;

/// Bytes of a frame that do not mean anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The bytes do not have the form they must have.
    Syntax(&'static str),
    /// A short string is not UTF-8.
    Text,
    /// No method has this class and number.
    Unknown(u16, u16),
}

impl From<Short> for Malformed {
    fn from(_: Short) -> Self {
        Malformed::Syntax("the fields end early")
    }
}
