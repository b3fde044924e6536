//! Time as an input: nobody below the runtime reads a clock.

/// The instant a step runs at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// Microseconds of a clock that never goes back, from an arbitrary start.
    pub mono_us: u64,
    /// Milliseconds since 1970-01-01 UTC, as the machine believes; may jump.
    pub wall_ms: u64,
}
