//! The committed offsets of a coordinator as bytes of a checkpoint.
//!
//! ```text
//! coordinator  id u64, configuration length and bytes, group count;
//!              groups: name length and bytes, last commit (ms), offset count;
//!                      offsets: log u64, offset, epoch + 1 (0: none), committed at (ms), metadata length and bytes
//! ```
//! Numbers without a width are varints; the others are little endian. Texts are UTF-8.

use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;

use base::{Bug, Put, planted};
use model::{Damaged, QueueId};

use crate::checkpoint::{Decoder, narrow, require};
use crate::{Committed, ConsumerGroup, GroupOffsets};

/// Groups written between two looks at the budget.
const STRIDE: usize = 8;

pub(crate) fn encode_coordinator(id: QueueId, coordinator: &GroupOffsets, out: &mut Vec<u8>) {
    out.put_u64_le(id.0);
    out.put_lengthed(&coordinator.config);
    out.put_varint(coordinator.groups.len() as u64);
}

/// Writes some groups behind this one and returns the last; `None` when there was none left.
pub(crate) fn encode_groups(
    coordinator: &GroupOffsets,
    before: Option<Arc<str>>,
    out: &mut Vec<u8>,
) -> Option<Arc<str>> {
    let from = before.as_deref().map_or(Unbounded, Excluded);
    let mut last = None;
    for (name, group) in coordinator.groups.range::<str, _>((from, Unbounded)).take(STRIDE) {
        out.put_lengthed(name.as_bytes());
        out.put_varint(group.touched_ms);
        out.put_varint(group.offsets.len() as u64);
        group.offsets.iter().for_each(|(log, committed)| encode_committed(*log, committed, out));
        last = Some(name.clone());
    }
    last
}

fn encode_committed(log: QueueId, committed: &Committed, out: &mut Vec<u8>) {
    out.put_u64_le(log.0);
    // The planted bug writes where every group began.
    out.put_varint(if planted(Bug::ForgetOffsetOnCheckpoint) { 0 } else { committed.offset });
    out.put_varint(committed.epoch.map_or(0, |epoch| u64::from(epoch) + 1));
    out.put_varint(committed.time_ms);
    out.put_lengthed(committed.metadata.as_bytes());
}

impl Decoder<'_> {
    pub(crate) fn coordinator(&mut self) -> Result<GroupOffsets, Damaged> {
        let mut coordinator = GroupOffsets::new(self.reader.lengthed()?);
        for _ in 0..self.reader.varint()? {
            let name = self.text()?;
            let group = self.consumer_group()?;
            require(!group.offsets.is_empty())?;
            require(coordinator.groups.insert(name, Arc::new(group)).is_none())?;
        }
        Ok(coordinator)
    }

    fn consumer_group(&mut self) -> Result<ConsumerGroup, Damaged> {
        let mut group = ConsumerGroup { touched_ms: self.reader.varint()?, ..ConsumerGroup::default() };
        for _ in 0..self.reader.varint()? {
            let (log, offset) = (QueueId(self.reader.u64_le()?), self.reader.varint()?);
            let epoch = self.reader.varint()?.checked_sub(1).map(narrow).transpose()?;
            let (time_ms, metadata) = (self.reader.varint()?, self.text()?);
            let committed = Committed { offset, epoch, metadata, time_ms };
            require(group.offsets.insert(log, committed).is_none())?;
        }
        Ok(group)
    }

    fn text(&mut self) -> Result<Arc<str>, Damaged> {
        let bytes = self.reader.lengthed()?;
        std::str::from_utf8(bytes).map(Arc::from).map_err(|_| Damaged("a text of a checkpoint is not UTF-8"))
    }
}
