//! What has left the ring: rows that die, blocks that are dropped, pieces that are read.

use model::{GroupId, Index, QueueId};

use super::*;

impl Driver {
    pub(super) fn enable(&mut self) {
        if self.evacuates {
            self.log.enable_evacuation();
        }
    }

    /// Some row of an old entry is needed no more.
    pub(super) fn settle_rows(&mut self) {
        let group = self.group();
        let model = self.groups.get_mut(&group).unwrap();
        for _ in 0..4 {
            let below = self.prng.below(model.checkpoint.index + 1);
            if let Some((index, _)) = model.now.log.range(below..=model.checkpoint.index).next() {
                model.dead.insert((*index, self.prng.below(3) as u32));
            }
        }
    }

    pub(super) fn trim(&mut self) {
        let Some((group, model)) = self.groups.iter_mut().find(|(_, model)| model.to_trim) else { return };
        let model_now = &*model;
        let live = &mut |log: QueueId, first: Index, last: Index| {
            let kept = model_now.checkpoint.kept.range(first.0..=last.0);
            kept.into_iter().any(|index| model_now.rows(*index).iter().any(|row| row.log == log))
        };
        if model_now.removed.is_some() || !self.log.trim(GroupId(*group), live) {
            model.to_trim = false;
        }
    }

    /// What is written for runs fails, and everything goes on.
    pub(super) fn fail_run(&mut self) {
        self.take_ops();
        let of_runs = |op: &DiskOp| matches!(op, DiskOp::Put { file, .. } if pieces::is_of_runs(file));
        let Some(place) = self.disk.under_way.iter().position(of_runs) else { return };
        if let Some(done) = self.disk.fail(place, &mut self.prng) {
            self.log.completed(done);
        }
    }

    /// Some entries are noted once they are committed.
    pub(super) fn note(&mut self, group: u32, committed: std::ops::RangeInclusive<u64>) {
        for index in committed.filter(|_| self.evacuates) {
            let model = &self.groups[&group];
            let Some((_, payload)) = model.now.log.get(&index) else { continue };
            let crc = |piece: &PiecePlan| crc32c(&payload[piece.start as usize..][..piece.length as usize]);
            let rows = pieces::rows(index, payload.len());
            let plan: Vec<PiecePlan> = rows.iter().flat_map(|(_, row)| pieces::plan(&[*row])).collect();
            if !plan.is_empty() && self.prng.chance(2, 3) {
                let noted = plan.iter().map(|piece| NotedPiece { piece: *piece, crc: crc(piece) }).collect();
                self.log.note(GroupId(group), Index(index), noted);
            }
        }
    }

    pub(super) fn adopting(&mut self, group: u32, index: u64, noted: &[NotedPiece]) {
        if self.prng.chance(1, 10) {
            return self.log.show(GroupId(group), Index(index));
        }
        self.unread += 1;
        let model = &self.groups[&group];
        let rows = if model.now.log.contains_key(&index) { model.rows(index) } else { Vec::new() };
        let needed = noted.iter().map(|noted| noted.piece);
        let needed = needed.filter(|piece| rows.iter().any(|row| row.start == piece.start));
        let plan: Vec<PiecePlan> = needed.collect();
        self.log.evacuate(GroupId(group), Index(index), &plan);
    }

    pub(super) fn evacuating(&mut self, group: u32, index: u64, entry: &base::Block) {
        let model = &self.groups[&group];
        let Some((_, payload)) = model.now.log.get(&index) else {
            return self.log.evacuate(GroupId(group), Index(index), &[]);
        };
        assert_eq!(entry.as_slice(), payload);
        let plan = pieces::plan(&model.rows(index));
        self.log.evacuate(GroupId(group), Index(index), &plan);
    }

    pub(super) fn read_row(&mut self, group: u32, index: u64) {
        let model = &self.groups[&group];
        let rows = if model.now.log.contains_key(&index) { model.rows(index) } else { Vec::new() };
        if rows.is_empty() {
            return;
        }
        let row = *self.prng.pick(&rows);
        if self.prng.chance(1, 4) {
            self.log.prefetch_piece(GroupId(group), row.asked(), Index(index), row.at);
            return;
        }
        match row.ask(&mut self.log, group) {
            PieceLookup::Ready(piece) => self.check_row(group, &row, &piece),
            PieceLookup::Pending => {
                self.loading_pieces.entry((group, row.asked().0, index, row.at)).or_insert(row);
            }
            PieceLookup::Gone => panic!("group {group} {row:?} is gone"),
        }
    }

    /// The block that was read is no more, which need not be the one that has the row: whoever needs it asks again.
    pub(super) fn dropped(&mut self, key: (u32, u64, u64, u32)) {
        let Some(row) = self.loading_pieces.remove(&key) else { return };
        let model = &self.groups[&key.0];
        let is_kept = model.removed.is_none() && model.checkpoint.kept.contains(&key.2);
        if is_kept && model.rows(key.2).contains(&row) {
            match row.ask(&mut self.log, key.0) {
                PieceLookup::Ready(piece) => self.check_row(key.0, &row, &piece),
                PieceLookup::Pending => drop(self.loading_pieces.insert(key, row)),
                PieceLookup::Gone => panic!("group {} {row:?} was dropped", key.0),
            }
        }
    }

    pub(super) fn loaded_piece(
        &mut self,
        key: (u32, u64, u64, u32),
        ordinal: u32,
        piece: Result<Piece, String>,
    ) {
        // Other rows of the same place may have been asked for, and only one is remembered.
        if self.loading_pieces.get(&key).is_none_or(|row| row.ordinal != ordinal) {
            return;
        }
        let Some(row) = self.loading_pieces.remove(&key) else { return };
        self.pieces_read += 1;
        let model = &self.groups[&key.0];
        if model.removed.is_none()
            && model.checkpoint.kept.contains(&key.2)
            && model.rows(key.2).contains(&row)
        {
            let piece = piece.unwrap_or_else(|why| panic!("group {} {row:?}: {why}", key.0));
            self.check_row(key.0, &row, &piece);
        }
    }

    pub(super) fn check_row(&self, group: u32, row: &Row, piece: &Piece) {
        let payload = &self.groups[&group].now.log[&row.index].1;
        row.check(payload, piece);
    }

    /// All rows of an entry that is in runs, read at once.
    pub(super) fn check_rows(&mut self, group: u32, index: u64, damaged: bool) {
        for row in self.groups[&group].rows(index) {
            match pieces::fetch(&mut self.log, &mut self.disk, group, &row) {
                Ok(piece) => self.check_row(group, &row, &piece),
                Err(why) => assert!(damaged, "group {group} {row:?}: {why}"),
            }
        }
    }
}
