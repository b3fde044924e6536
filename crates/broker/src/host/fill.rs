//! Spending consumers' credit: handing out what is ready and committed as handed out.

use model::{OperationKind, QueueId};
use queue::Wanted;

use super::entries::{Ahead, find};
use crate::Broker;
use crate::parcel::Content;

/// Bytes one queue may hand out before the others have their turn.
const FILL_BYTES: u64 = 2 << 20;

impl Broker {
    /// Hands out what can be; returns whether anything was.
    pub(crate) fn fill(&mut self) -> bool {
        let mut any = false;
        for at in 0..self.host.groups.len() {
            let mut active = std::mem::take(&mut self.host.groups[at].active);
            for queue in active.drain(..) {
                any |= self.fill_queue(at, queue);
            }
            let group = &mut self.host.groups[at];
            active.append(&mut group.active);
            group.active = active;
        }
        any
    }

    fn fill_queue(&mut self, at: usize, queue: QueueId) -> bool {
        let group = &mut self.host.groups[at];
        let Some(hosted) = group.queues.get_mut(&queue) else { return false };
        hosted.awake = false;
        let delivery = &mut hosted.delivery;
        let Some(state) = group.machine.queue(queue) else { return false };
        let mut handed = std::mem::take(&mut group.handed);
        let (id, log, loaded, commit_log) = (group.id, &group.log, &mut group.loaded, &mut self.log);
        let (reader, ahead) = ((queue, 0), Ahead::Entries((queue, 0)));
        let mut source = |wanted: Wanted| find((log, loaded, id), commit_log, queue, wanted, ahead);
        let filled = delivery.fill(state, FILL_BYTES, &mut source, &mut handed);
        let is_reading = delivery.waiting_for().is_some();
        if is_reading {
            group.reading.insert(queue);
        }
        if !is_reading || !handed.is_empty() {
            group.loaded.served(reader);
        }
        let wanted = delivery.wants_hand_out();
        let any = !handed.is_empty();
        for handed in handed.drain(..) {
            hosted.delivered += handed.items.len() as u64;
            self.post.send(handed.key.shard, Content::Handed { group: id, queue, handed });
        }
        hosted.note_taker(queue, &mut group.takers);
        group.handed = handed;
        if let Some(bound) = wanted {
            self.raise_bound(at, queue, bound);
        }
        if filled.more {
            self.host.groups[at].wake(queue);
        }
        any
    }

    /// Proposes that messages below `bound` may be handed out, once.
    pub(crate) fn raise_bound(&mut self, at: usize, queue: QueueId, bound: model::Seq) {
        let group = &mut self.host.groups[at];
        let Some(hosted) = group.queues.get_mut(&queue).filter(|hosted| hosted.bound < bound) else { return };
        hosted.bound = bound;
        let id = group.id;
        if let Some(outgoing) = self.door.outgoing(id) {
            outgoing.operation(&self.pool, OperationKind::HandOut, queue, &bound.0.to_le_bytes());
        }
    }
}
