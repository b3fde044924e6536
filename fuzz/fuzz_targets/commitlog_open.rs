//! Any bytes as files of a log, and the files of a real log with damage, noticed by checksums or not. Opening never
//! panics, what it returns was framed with valid checksums, and a log that opens goes on: what is appended then is
//! there after the next start.
#![no_main]

use base::Pool;
use fuzzing::framed::is_framed;
use fuzzing::log::{open, settle, written};
use fuzzing::seal::seal;
use fuzzing::{Draws, MemoryDisk};
use libfuzzer_sys::fuzz_target;
use model::{GroupId, Index, Term};

const NEW: GroupId = GroupId(99);
const SEGMENTS: [&str; 3] = ["segment-0.log", "segment-1.log", "segment-4294967295.log"];
const CHECKPOINTS: [&str; 3] = ["checkpoint-1-1", "checkpoint-1-2", "checkpoint-2-4611686018427387903"];

fn damage(draws: &mut Draws<'_>, disk: &mut MemoryDisk) {
    let names: Vec<String> = disk.0.keys().cloned().collect();
    let name = match draws.below(4) {
        0 => format!("shard-0/{}", draws.pick(&[SEGMENTS, CHECKPOINTS].concat())),
        _ => names[usize::from(draws.byte()) % names.len()].clone(),
    };
    let file = disk.0.entry(name).or_insert_with(|| vec![0; 16_384]);
    if draws.below(16) == 15 {
        return file.truncate(usize::from(draws.byte()) << 7);
    }
    // Most of what matters stands at the beginning of a page.
    let at = usize::from(draws.below(8)) << 12 | usize::from(draws.byte());
    let bytes = draws.piece();
    if let Some(place) = file.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

fuzz_target!(|data: &[u8]| {
    let mut draws = Draws(data);
    let count = draws.below(32);
    let mut disk = written(&mut draws, count);
    let sealed = draws.flag();
    while !draws.is_empty() {
        damage(&mut draws, &mut disk);
    }
    if sealed {
        seal(&mut disk);
    }
    let Ok((mut log, groups)) = open(&disk) else { return };
    for group in &groups {
        for (index, term) in &group.entries {
            let Ok(payload) = log.load(&disk, group.group, *index) else { continue };
            assert!(is_framed(&disk, group.group, *index, *term, payload.as_slice()), "nobody wrote that");
        }
    }
    if groups.iter().all(|group| group.group != NEW) {
        log.append(NEW, Term(1), Index(1), Pool::default().block(b"new"));
    }
    settle(&mut log, &mut disk);
    let (_, mut again) = open(&disk).expect("what was opened once opens again");
    assert!(again.iter().any(|group| group.group == NEW), "what was appended is there");
    again.retain(|group| groups.iter().any(|before| before.group == group.group));
    assert_eq!(again, groups, "and is as it was");
});
