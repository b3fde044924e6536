//! Hash maps whose iteration order does not depend on the process. Iteration order is still arbitrary: replicated
//! state that is iterated uses `BTreeMap`.

use foldhash::fast::FixedState;

/// A hash map with a fixed seed.
pub type Map<K, V> = hashbrown::HashMap<K, V, FixedState>;
/// A hash set with a fixed seed.
pub type Set<K> = hashbrown::HashSet<K, FixedState>;

/// An empty map; `seed` is drawn once per process by the runtime where keys come from the wire.
pub fn map<K, V>(seed: u64) -> Map<K, V> {
    Map::with_hasher(FixedState::with_seed(seed))
}

/// An empty set; see [`map`].
pub fn set<K>(seed: u64) -> Set<K> {
    Set::with_hasher(FixedState::with_seed(seed))
}
