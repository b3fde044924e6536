//! What a message says of itself beside its body, free of any protocol's encoding.
//!
//! A record keeps the native bytes of the protocol that wrote it. When a reader of another protocol wants it, the
//! writer's side reads those bytes into this, and the reader's side writes its own form from it; docs/mapping.md says
//! how. Never stored.

use crate::Arguments;

/// The well-known properties of a message and its headers. Texts are bytes that are usually UTF-8.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)] // The names are those that brokers share.
pub struct Properties {
    pub content_type: Option<Vec<u8>>,
    pub content_encoding: Option<Vec<u8>>,
    /// Typed, in the order given; names do not repeat.
    pub headers: Arguments,
    /// 1 transient, 2 persistent.
    pub delivery_mode: Option<u8>,
    pub priority: Option<u8>,
    pub correlation_id: Option<Vec<u8>>,
    pub reply_to: Option<Vec<u8>>,
    pub expiration: Option<Vec<u8>>,
    pub message_id: Option<Vec<u8>>,
    /// Seconds since 1970.
    pub timestamp: Option<u64>,
    pub kind: Option<Vec<u8>>,
    pub user_id: Option<Vec<u8>>,
    pub app_id: Option<Vec<u8>>,
    pub cluster_id: Option<Vec<u8>>,
}
