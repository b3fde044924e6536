//! Operations that fail on purpose: a write or a put once, everything that needs space while the disk is full.

use commitlog::disk::DiskOp;

/// Which operations are going to fail.
#[derive(Clone, Debug, Default)]
pub struct Errors {
    /// The next write of this shard fails.
    pub write_of: Option<u16>,
    /// The next put of this shard fails.
    pub put_of: Option<u16>,
    /// Nothing can be made or grow.
    pub is_full: bool,
    /// Shards of which a write has failed: none is begun any more.
    poisoned: Vec<u16>,
    /// Shards that were told of a failure after which nothing may be confirmed.
    pub told: Vec<u16>,
}

impl Errors {
    /// Why the operation fails, if it does.
    pub(super) fn strikes(&mut self, shard: u16, op: &DiskOp, lacks_room: bool) -> Option<String> {
        let aimed = match op {
            DiskOp::Write { .. } => &mut self.write_of,
            DiskOp::Put { .. } => &mut self.put_of,
            _ => &mut None,
        };
        let hit = aimed.take_if(|of| *of == shard).is_some();
        let grows = matches!(op, DiskOp::Create { .. } | DiskOp::Prepare { .. } | DiskOp::Put { .. });
        if hit && matches!(op, DiskOp::Write { .. }) {
            self.poisoned.push(shard);
        }
        let why = match (hit, grows && (self.is_full || lacks_room)) {
            (true, _) => "input/output error",
            (_, true) => "no space left on device",
            _ => return None,
        };
        // The ring goes on without a segment prepared in advance and without runs; everything else ends the shard.
        if !matches!(op, DiskOp::Prepare { .. }) && !super::is_of_runs(super::file_of(op)) {
            self.told.push(shard);
        }
        Some(why.to_owned())
    }

    /// Whether the operation is refused without being begun.
    pub(super) fn refuses(&self, shard: u16, op: &DiskOp) -> bool {
        matches!(op, DiskOp::Write { .. }) && self.poisoned.contains(&shard)
    }

    /// Whether something is going to fail.
    pub fn are_coming(&self) -> bool {
        self.write_of.is_some() || self.put_of.is_some() || self.is_full
    }

    /// The disk is sound again.
    pub fn heal(&mut self) {
        *self = Errors::default();
    }
}
