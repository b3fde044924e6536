//! From a run to the bytes of its rows: the block they are in, and where each begins.
//!
//! A row is found by walking length fields from the one before, so handing out in sequence touches each once.

use base::{Block, Pool, Put};
use model::Index;

use crate::QueueState;
use crate::queue_state::{IN_PARTS, Run};

/// What is loaded: an entry, or the row that was assembled for a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loaded {
    Entry(u64),
    Assembled(u64),
}

/// The block in use.
#[derive(Debug)]
pub(crate) struct Rows {
    pool: Pool,
    loaded: Option<(Loaded, Block)>,
    /// Rises with every block: tells whether something was taken from the one in use.
    stamp: u64,
}

/// Where an entry's bytes come from; `None` when they must be read from disk first.
pub(crate) type Source<'a> = &'a mut dyn FnMut(Index) -> Option<Block>;

impl Rows {
    pub(crate) fn new(pool: Pool) -> Rows {
        Rows { pool, loaded: None, stamp: 0 }
    }

    /// Makes the run's block the one in use, or names the entry that is missing.
    pub(crate) fn load(&mut self, state: &QueueState, run: &Run, source: Source<'_>) -> Result<(), Index> {
        let wanted = if run.at == IN_PARTS { Loaded::Assembled(run.first) } else { Loaded::Entry(run.index) };
        if self.loaded.as_ref().is_some_and(|(loaded, _)| *loaded == wanted) {
            return Ok(());
        }
        let block = match wanted {
            Loaded::Entry(index) => source(Index(index)).ok_or(Index(index))?,
            Loaded::Assembled(seq) => self.assemble(state, seq, source)?,
        };
        self.loaded = Some((wanted, block));
        self.stamp += 1;
        Ok(())
    }

    fn assemble(&self, state: &QueueState, seq: u64, source: Source<'_>) -> Result<Block, Index> {
        let pieces = state.pieces.get(&seq).expect("a run in parts has pieces");
        let mut row = self.pool.builder(pieces.iter().map(|piece| piece.len as usize).sum());
        for piece in pieces.iter() {
            let missing = Index(piece.index);
            let block = source(missing).ok_or(missing)?;
            let at = piece.at as usize;
            row.put(block.as_slice().get(at..at + piece.len as usize).ok_or(missing)?);
        }
        Ok(row.freeze())
    }

    /// The block in use and its stamp.
    #[inline]
    pub(crate) fn block(&self) -> (&Block, u64) {
        let (_, block) = self.loaded.as_ref().expect("a block is loaded before its rows are looked for");
        (block, self.stamp)
    }

    /// Lets go of the block.
    pub(crate) fn unload(&mut self) {
        self.loaded = None;
    }
}

/// The last row that was looked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Walk {
    /// The run, by its first place.
    pub(crate) run: u64,
    /// The row, counted from the run's first.
    pub(crate) ordinal: u64,
    /// Where it begins.
    pub(crate) at: u32,
}

impl Walk {
    pub(crate) const NOWHERE: Walk = Walk { run: u64::MAX, ordinal: 0, at: 0 };

    /// Walks to a row and returns where it begins and its length; `None` when the block does not have it.
    pub(crate) fn locate(&mut self, block: &Block, run: &Run, seq: u64) -> Option<(u32, u32)> {
        let ordinal = seq - run.first;
        if self.run != run.first || self.ordinal > ordinal {
            let at = if run.at == IN_PARTS { 0 } else { run.at };
            *self = Walk { run: run.first, ordinal: 0, at };
        }
        while self.ordinal < ordinal {
            self.at += row_len(block.as_slice(), self.at)?;
            self.ordinal += 1;
        }
        row_len(block.as_slice(), self.at).map(|len| (self.at, len))
    }
}

/// The whole length of the row that begins at `at`; `None` unless all of it is there.
#[inline]
pub(crate) fn row_len(bytes: &[u8], at: u32) -> Option<u32> {
    let rest = bytes.get(at as usize..)?;
    let length = u32::from_le_bytes(*rest.first_chunk()?).checked_add(4)?;
    (length as usize <= rest.len() && (at as usize + length as usize) < u32::MAX as usize).then_some(length)
}
