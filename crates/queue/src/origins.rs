//! Exactly once: per place the last operation applied, the answers of the latest, and the parts that wait for their
//! end. A newer boot of a place replaces all of it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use model::{OpSequence, Operation, Origin};

use crate::liveness::Ledger;

/// How many answers are remembered per place. Every append of a batch as it came has one, and all that were not
/// answered may be sent again.
pub(crate) const WINDOW: usize = 4096;

/// Some bytes of a row that came in parts: where in which entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The entry.
    pub index: u64,
    /// Where in it.
    pub at: u32,
    /// How many.
    pub len: u32,
}

/// A row that is not complete yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Partial {
    pub(crate) pieces: Vec<Piece>,
    /// Bytes the row's own length field promises, that field included.
    pub(crate) expected: u64,
}

impl Partial {
    fn len(&self) -> u64 {
        self.pieces.iter().map(|piece| u64::from(piece.len)).sum()
    }
}

/// What is remembered of one place.
#[derive(Clone, Debug, Default)]
pub(crate) struct Place {
    pub(crate) boot: u32,
    pub(crate) last: u64,
    /// Shared with frozen views, as is the next; what changes with every operation is not.
    pub(crate) answers: Arc<VecDeque<(u64, u64)>>,
    pub(crate) partial: Arc<Partial>,
}

/// What becomes of an operation.
pub(crate) enum Admission {
    New,
    Repeat { last: OpSequence, answer: Option<u64> },
    Gap { expected: OpSequence },
    Superseded,
}

/// All places that ever sent an operation.
#[derive(Clone, Debug, Default)]
pub(crate) struct Origins {
    pub(crate) places: BTreeMap<u32, Place>,
}

impl Origins {
    /// Decides about an operation; `New` counts it as applied.
    pub(crate) fn admit(
        &mut self,
        origin: Origin,
        sequence: OpSequence,
        ledger: &mut Ledger<'_>,
    ) -> Admission {
        let known = self.places.get_mut(&origin.place());
        let expected =
            known.as_ref().filter(|place| place.boot == origin.boot()).map_or(1, |place| place.last + 1);
        if let Some(place) = known {
            if place.boot == origin.boot() && sequence.0 == expected {
                place.last = expected;
                return Admission::New;
            }
            if place.boot > origin.boot() {
                return Admission::Superseded;
            }
            if place.boot == origin.boot() && sequence.0 < expected {
                let found = place.answers.binary_search_by_key(&sequence.0, |answer| answer.0);
                let answer = found.ok().map(|at| place.answers[at].1);
                return Admission::Repeat { last: OpSequence(place.last), answer };
            }
        }
        if sequence.0 != expected {
            return Admission::Gap { expected: OpSequence(expected) };
        }
        let place = self.places.entry(origin.place()).or_default();
        if place.boot != origin.boot() {
            place.drop_partial(ledger);
            *place = Place { boot: origin.boot(), ..Place::default() };
        }
        place.last = sequence.0;
        Admission::New
    }

    /// Remembers the answer of the operation admitted last from this origin.
    pub(crate) fn remember(&mut self, origin: Origin, sequence: OpSequence, value: u64) {
        if let Some(place) = self.places.get_mut(&origin.place()) {
            let answers = Arc::make_mut(&mut place.answers);
            if answers.len() == WINDOW {
                answers.pop_front();
            }
            answers.push_back((sequence.0, value));
        }
    }

    /// Adds a part to the row its origin is sending.
    pub(crate) fn add_part(&mut self, operation: &Operation<'_>, ledger: &mut Ledger<'_>) {
        let Some(place) = self.places.get_mut(&operation.origin.place()) else { return };
        let length = operation.body.len() as u64;
        if place.partial.len() + length > place.partial.expected {
            // The row before was never finished: this part begins another one.
            place.drop_partial(ledger);
            let head = operation.body.first_chunk().map_or(0, |head| u64::from(u32::from_le_bytes(*head)));
            Arc::make_mut(&mut place.partial).expected = 4 + head;
        }
        if length > place.partial.expected {
            // Not the beginning of a row either.
            place.partial = Arc::default();
        } else if length > 0 {
            ledger.hold(ledger.current.0, 1);
            let piece =
                Piece { index: ledger.current.0, at: operation.at as u32, len: operation.body.len() as u32 };
            Arc::make_mut(&mut place.partial).pieces.push(piece);
        }
    }

    /// Takes the pieces of a row, with the hold each has on its entry; none unless the row is complete.
    pub(crate) fn take_parts(&mut self, origin: Origin, ledger: &mut Ledger<'_>) -> Vec<Piece> {
        let Some(place) = self.places.get_mut(&origin.place()) else { return Vec::new() };
        if place.partial.pieces.is_empty() || place.partial.len() != place.partial.expected {
            place.drop_partial(ledger);
        }
        Arc::unwrap_or_clone(std::mem::take(&mut place.partial)).pieces
    }
}

impl Place {
    fn drop_partial(&mut self, ledger: &mut Ledger<'_>) {
        for piece in &std::mem::take(&mut self.partial).pieces {
            ledger.release(piece.index, 1);
        }
    }
}
