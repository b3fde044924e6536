//! What consumers of streams may not ask for.
//!
//! In: a subscription and whether its queue is a stream. Out: why it is refused. Never: starts a consumer.

use model::{ConnId, Refusal, Subscribe};

use crate::Broker;

impl Broker {
    /// Why this consumer cannot be, as far as that turns on whether its queue is a stream.
    pub(super) fn stream_refusal(
        &self,
        conn: ConnId,
        subscribe: &Subscribe<'_>,
        stream: bool,
    ) -> Option<Refusal> {
        let connection = self.door.connections.get(&conn);
        let vhost = connection.and_then(|connection| connection.vhost.as_deref()).unwrap_or_default();
        let name = format!("queue '{}' in vhost '{vhost}'", subscribe.queue);
        if !stream {
            let what = match (subscribe.start, &subscribe.filter) {
                (Some(_), _) => "say where it begins",
                (None, Some(_)) => "filter",
                (None, None) => return None,
            };
            return Some(Refusal::Invalid(format!("a consumer of {name} cannot {what}: it is not a stream")));
        }
        // What is sent must be settled, else nothing bounds a reader that is slower than the log.
        if subscribe.settled {
            let text = format!("automatic acknowledgement not supported by stream {name}");
            return Some(Refusal::NotImplemented(text));
        }
        if subscribe.credit.is_none() {
            let text = format!("consumer prefetch count is not set for stream {name}");
            return Some(Refusal::Invalid(text));
        }
        let lane = connection.and_then(|connection| connection.lanes.get(&subscribe.lane));
        let windowed = lane.is_some_and(|lane| lane.window.is_some());
        windowed.then(|| Refusal::NotImplemented(format!("{name} does not support global qos")))
    }
}
