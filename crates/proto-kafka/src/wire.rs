//! The bytes of the protocol: frames, headers and fields, and the two messages that carry records by hand.

pub mod api;
pub mod decoder;
pub mod encoder;
pub mod frame;
pub mod records;

pub use api::{APIS, Api};
pub use decoder::{Decoder, Malformed};
pub use encoder::{Encoder, put_response};
pub use frame::Header;
