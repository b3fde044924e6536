//! Settling: what a session is done with, gathered by queue until an entry leaves.

use model::entry::COUNT;
use model::{ConnId, ConsumerId, Lane, OperationKind, Outcome, QueueId, Seq, Settlement};

use crate::Broker;
use crate::parcel::Content;

/// Messages a consumer without any bound is granted ahead, where a window was lifted and may come back: what has
/// been granted cannot be called back, only what is handed out for it.
const UNBOUNDED: u32 = 1024;
/// So many settlements before it is needed the group of a queue is asked for.
const AHEAD: usize = 8;

impl Broker {
    /// Ends deliveries, all of them made on this lane.
    pub(crate) fn settle(&mut self, conn: ConnId, lane: Lane, settlements: &[Settlement]) {
        let mut count = 0;
        for (at, Settlement { queue, first, last, outcome }) in settlements.iter().enumerate() {
            settlements
                .get(at + AHEAD)
                .into_iter()
                .for_each(|coming| self.door.group_of.prefetch(&coming.queue));
            self.settle_range(*queue, (*first, *last), *outcome);
            count += last.0 - first.0 + 1;
        }
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let Some(connection) = self.door.connections.get_mut(&conn) else { return };
        let Some(state) = connection.lanes.get_mut(&lane) else { return };
        state.held = state.held.saturating_sub(count);
        if state.window.is_some() {
            self.open_window(conn, lane);
        }
    }

    /// Puts a settlement among those of the queue's group.
    #[inline]
    pub(crate) fn settle_range(&mut self, queue: QueueId, range: (Seq, Seq), outcome: Outcome) {
        let Some(group) = self.door.group_of.get(&queue) else { return };
        let Some(at) = self.door.by_group.get(group) else { return };
        let outgoing = &mut self.door.outgoing[*at];
        let (kind, flags) = match outcome {
            // Without dead letters a rejected message is simply done.
            Outcome::Accept | Outcome::Reject => (OperationKind::Settle, 0),
            Outcome::Return { failed: true } => (OperationKind::Return, COUNT),
            Outcome::Return { failed: false } => {
                return self.post.send(outgoing.host, Content::Return { group: *group, queue, range });
            }
        };
        outgoing.settle(kind, flags, queue, range, self.now);
    }

    /// Lets the lane's windowed consumers have what its window leaves free.
    ///
    /// Each may be handed all of it, so together they may be handed too much: what is too much is taken back
    /// before it is delivered (`deliver`). Dividing the window instead would leave shares at idle queues.
    pub(crate) fn open_window(&mut self, conn: ConnId, lane: Lane) {
        let Some(connection) = self.door.connections.get_mut(&conn) else { return };
        let free = connection.lanes.get(&lane).and_then(|state| state.free());
        let all = (lane, ConsumerId(0))..=(lane, ConsumerId(u32::MAX));
        for (_, id) in connection.windowed.range(all) {
            let Some(consumer) = connection.consumers.get_mut(id).filter(|consumer| consumer.started) else {
                continue;
            };
            let may = match (free, consumer.allowed) {
                (Some(free), Some(allowed)) => free.min(allowed),
                (Some(bound), None) | (None, Some(bound)) => bound,
                (None, None) => UNBOUNDED,
            };
            let messages = may.saturating_sub(consumer.at_host);
            let Some(host) = self.door.by_group.get(&consumer.group).map(|at| self.door.outgoing[*at].host)
            else {
                continue;
            };
            if messages > 0 {
                consumer.at_host += messages;
                let key = queue::ConsumerKey { shard: self.settings.shard, conn, consumer: *id };
                let (group, queue) = (consumer.group, consumer.queue);
                self.post.send(host, Content::Grant { group, queue, key, messages, bytes: 0 });
            }
        }
    }
}
