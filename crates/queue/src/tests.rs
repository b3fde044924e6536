//! The machines against a plain model under random use, and single cases worth a name.

mod cases;
mod log_cases;
mod log_model;
mod model;
mod random;

use ::model::{Protocol, Record};

/// A record with this body and nothing else of interest.
fn record(body: &[u8]) -> Record<'_> {
    Record { routing_key: "q", prefix: &[0, 0], body: Some(body), ..Record::bare(Protocol::Amqp091) }
}
