//! From a run to the bytes of its rows: the bytes they are in, and where each begins.
//!
//! What is asked for is what was still needed of an entry: the whole entry, or a piece of it that leaves rows out in
//! front. Places are counted in the entry wherever they are remembered, so that it does not matter in which piece a
//! row was found last. A row is found by walking length fields from the one before, so handing out in sequence
//! touches each once.

use base::{Block, Pool, Put};
use model::Index;

use crate::QueueState;
use crate::queue_state::{IN_PARTS, Run};

/// Bytes of an entry that are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The entry.
    pub index: Index,
    /// The place in it of the first row of the batch, whatever is left of it; of a part, where that begins.
    pub at: u32,
    /// The row that is to be in it, counted from the first of the batch.
    pub ordinal: u32,
}

/// Bytes of an entry: all of it, or a piece.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Where they are.
    pub block: Block,
    /// Where in the entry they begin.
    pub entry_at: u32,
    /// Where in the block they begin.
    pub start: u32,
    /// Rows of the batch in front of them that are left out: then they begin with the next one.
    pub ordinal: u32,
    /// How many.
    pub length: u32,
}

/// Where an entry's bytes come from; `None` when they must be read from disk first.
pub(crate) type Source<'a> = &'a mut dyn FnMut(Wanted) -> Option<Fetched>;

impl Fetched {
    /// A whole entry.
    pub fn entry(block: Block) -> Fetched {
        let length = block.len() as u32;
        Fetched { block, entry_at: 0, start: 0, ordinal: 0, length }
    }

    fn has(&self, at: u32) -> bool {
        at.checked_sub(self.entry_at).is_some_and(|within| within < self.length)
    }

    /// The bytes from this place of the entry on; `None` unless it is there.
    #[inline]
    fn from(&self, at: u32) -> Option<&[u8]> {
        let within = at.checked_sub(self.entry_at).filter(|within| *within < self.length)?;
        let (start, length) = (self.start as usize, self.length as usize);
        self.block.as_slice().get(start..start + length)?.get(within as usize..)
    }

    /// The whole length of the row that begins at this place of the entry; `None` unless all of it is there.
    #[inline]
    fn row_len(&self, at: u32) -> Option<u32> {
        let length = row_len(self.from(at)?)?;
        at.checked_add(length)?;
        Some(length)
    }
}

/// What is loaded: bytes of an entry for the batch that begins there, or the row that was assembled for a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loaded {
    Entry(u64, u32),
    Assembled(u64),
}

/// The bytes in use.
#[derive(Debug)]
pub(crate) struct Rows {
    pool: Pool,
    loaded: Option<(Loaded, Fetched)>,
    /// Rises with every block: tells whether something was taken from the one in use.
    stamp: u64,
}

impl Rows {
    pub(crate) fn new(pool: Pool) -> Rows {
        Rows { pool, loaded: None, stamp: 0 }
    }

    /// Where in the block in use from then on a message's row begins, and its length; or the entry that is missing.
    #[inline]
    pub(crate) fn locate(
        &mut self,
        walk: &mut Walk,
        (state, run): (&QueueState, &Run),
        seq: u64,
        source: Source<'_>,
    ) -> Result<(u32, u32), Index> {
        if let Some((loaded, bytes)) = &self.loaded
            && is_for(*loaded, bytes, run)
            && let Some(found) = walk.locate(bytes, run, seq)
        {
            return Ok(found);
        }
        let (_, bytes) = self.load(state, run, (seq - run.first) as u32, source)?;
        walk.locate(bytes, run, seq).ok_or(Index(run.index))
    }

    fn load(
        &mut self,
        state: &QueueState,
        run: &Run,
        ordinal: u32,
        source: Source<'_>,
    ) -> Result<&(Loaded, Fetched), Index> {
        let loaded = if run.at == IN_PARTS {
            (Loaded::Assembled(run.first), Fetched::entry(self.assemble(state, run.first, source)?))
        } else {
            let index = Index(run.index);
            let bytes = source(Wanted { index, at: run.at, ordinal }).ok_or(index)?;
            (Loaded::Entry(run.index, run.at), bytes)
        };
        self.stamp += 1;
        Ok(self.loaded.insert(loaded))
    }

    fn assemble(&self, state: &QueueState, seq: u64, source: Source<'_>) -> Result<Block, Index> {
        let pieces = state.pieces.get(&seq).expect("a run in parts has pieces");
        let mut row = self.pool.builder(pieces.iter().map(|piece| piece.len as usize).sum());
        for piece in pieces.iter() {
            let index = Index(piece.index);
            let bytes = source(Wanted { index, at: piece.at, ordinal: 0 }).ok_or(index)?;
            row.put(bytes.from(piece.at).and_then(|part| part.get(..piece.len as usize)).ok_or(index)?);
        }
        Ok(row.freeze())
    }

    /// The block in use and its stamp.
    #[inline]
    pub(crate) fn block(&self) -> (&Block, u64) {
        let (_, bytes) = self.loaded.as_ref().expect("bytes are loaded before their rows are looked for");
        (&bytes.block, self.stamp)
    }

    /// Lets go of the block.
    pub(crate) fn unload(&mut self) {
        self.loaded = None;
    }
}

/// Whether rows of the run may be in these bytes: other batches of the entry are, unless they begin within a batch.
#[inline]
fn is_for(loaded: Loaded, bytes: &Fetched, run: &Run) -> bool {
    match loaded {
        Loaded::Assembled(seq) => run.at == IN_PARTS && run.first == seq,
        Loaded::Entry(index, at) => {
            run.at != IN_PARTS && run.index == index && (bytes.ordinal == 0 || run.at == at)
        }
    }
}

/// The last row that was looked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Walk {
    /// The run, by its first place.
    pub(crate) run: u64,
    /// The row, counted from the run's first.
    pub(crate) ordinal: u64,
    /// Where it begins in the entry, or in the assembled row.
    pub(crate) at: u32,
}

impl Walk {
    pub(crate) const NOWHERE: Walk = Walk { run: u64::MAX, ordinal: 0, at: 0 };

    /// Walks to a row and returns where it begins in the block and its length; `None` when the bytes do not have it.
    fn locate(&mut self, bytes: &Fetched, run: &Run, seq: u64) -> Option<(u32, u32)> {
        let ordinal = seq - run.first;
        if self.run != run.first || self.ordinal > ordinal || !bytes.has(self.at) {
            *self = Walk { run: run.first, ..begin(bytes, run) };
        }
        if self.ordinal > ordinal {
            return None;
        }
        while self.ordinal < ordinal {
            self.at += bytes.row_len(self.at)?;
            self.ordinal += 1;
        }
        let length = bytes.row_len(self.at)?;
        Some((bytes.start + (self.at - bytes.entry_at), length))
    }
}

/// The first row of the run that these bytes may have.
fn begin(bytes: &Fetched, run: &Run) -> Walk {
    let (ordinal, at) = match (run.at, bytes.ordinal) {
        (IN_PARTS, _) => (0, 0),
        (at, 0) => (0, at),
        (_, left_out) => (u64::from(left_out), bytes.entry_at),
    };
    Walk { run: run.first, ordinal, at }
}

/// The whole length of the row that these bytes begin with; `None` unless all of it is there.
#[inline]
pub(crate) fn row_len(bytes: &[u8]) -> Option<u32> {
    let length = u32::from_le_bytes(*bytes.first_chunk()?).checked_add(4)?;
    (length as usize <= bytes.len()).then_some(length)
}
