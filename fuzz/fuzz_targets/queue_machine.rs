//! A group of queues under drawn operations, damaged entries and raw bytes, and its checkpoint, whole and damaged: an
//! entry is applied or halts without a trace, and what is read back goes on as if it had never left.
#![no_main]

use fuzzing::Draws;
use fuzzing::entries::Entries;
use libfuzzer_sys::fuzz_target;
use model::Index;
use queue::GroupMachine;

fn checkpoint(machine: &GroupMachine) -> Vec<u8> {
    let (mut view, mut bytes) = (machine.freeze(), Vec::new());
    while !view.encode(64, &mut bytes) {}
    bytes
}

fn apply(machine: &mut GroupMachine, entry: &[u8]) {
    let before = checkpoint(machine);
    let mut effects = Vec::new();
    let index = Index(machine.applied().0 + 1);
    let mut twin = GroupMachine::decode(&before).expect("what was written is read");
    let mut twins = Vec::new();
    let applied = machine.apply(index, entry, &mut effects);
    assert_eq!(twin.apply(index, entry, &mut twins), applied);
    assert_eq!(effects, twins, "the one that was read back does the same");
    assert_eq!((checkpoint(&twin), twin.kept_ranges()), (checkpoint(machine), machine.kept_ranges()));
    if applied.is_err() {
        assert!(effects.is_empty() && checkpoint(machine) == before, "a halt leaves no trace");
    }
}

fn damage(draws: &mut Draws<'_>, bytes: &mut [u8]) {
    for _ in 0..draws.below(4) {
        let at = usize::from(draws.byte()) << 8 | usize::from(draws.byte());
        bytes[at % bytes.len()] = draws.byte();
    }
}

fuzz_target!(|data: &[u8]| {
    let mut draws = Draws(data);
    let mut entries = Entries::default();
    let mut machine = GroupMachine::decode(draws.piece()).unwrap_or_default();
    while !draws.is_empty() {
        match draws.below(16) {
            0..12 => apply(&mut machine, entries.entry(&mut draws).as_slice()),
            12 => apply(&mut machine, draws.piece()),
            13 | 14 => {
                let mut entry = entries.entry(&mut draws).as_slice().to_vec();
                damage(&mut draws, &mut entry);
                apply(&mut machine, &entry);
            }
            _ => {
                let mut bytes = checkpoint(&machine);
                damage(&mut draws, &mut bytes);
                machine = GroupMachine::decode(&bytes).unwrap_or(machine);
            }
        }
    }
});
