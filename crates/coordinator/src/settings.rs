//! Times and bounds of consumer groups.

/// Times and bounds of consumer groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Milliseconds that the first generation of a group waits for more members after each new one.
    pub initial_delay_ms: u32,
    /// The shortest session timeout a member may ask for, milliseconds.
    pub session_min_ms: u32,
    /// The longest.
    pub session_max_ms: u32,
    /// Milliseconds after which a new member that waits for its first generation is forgotten.
    pub new_member_ms: u32,
    /// Members of one group, those included that were only given an id so far.
    pub members_max: usize,
    /// Groups with members.
    pub groups_max: usize,
    /// Bytes of the names and metadata that one member brings, and of one assignment.
    pub metadata_max: usize,
    /// Generations are numbered from here on. Whoever starts a coordinator chooses it so that numbers of an earlier
    /// start do not come again.
    pub generation_base: i32,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            initial_delay_ms: 500,
            session_min_ms: 6_000,
            session_max_ms: 1_800_000,
            new_member_ms: 300_000,
            members_max: 2_000,
            groups_max: 10_000,
            metadata_max: 1 << 20,
            generation_base: 0,
        }
    }
}
