//! The checksums of a log's files, written anew from the drawings of their layouts: damage that nobody notices.

use std::collections::BTreeMap;

use base::{crc32c, crc32c_seeded};

use crate::MemoryDisk;

/// The number at `at`; zeros stand behind the end.
pub fn number<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
}

/// Four bytes as a number.
pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(number(bytes, at))
}

/// Eight bytes as a number.
pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(number(bytes, at))
}

fn put(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// The checksum of a frame's header of this generation and flush at this place of its file.
pub fn frame_crc(header: &[u8], generation: u64, flush: u64, place: usize) -> u32 {
    let place = (place as u32).to_le_bytes();
    crc32c_seeded(generation, &[&flush.to_le_bytes(), &place, &header[4..48]])
}

/// The checksum of a flush's header at this place of a segment with that salt.
pub fn flush_crc(header: &[u8], salt: u32, place: usize) -> u32 {
    crc32c_seeded(u64::from(salt) << 32 | place as u64, &[&header[8..64]])
}

/// Gives every file the checksums that fit its content, and every flush its link to the one before.
pub fn seal(disk: &mut MemoryDisk) {
    for (_, file) in disk.0.iter_mut().filter(|(name, file)| name.contains("/check") && file.len() >= 128) {
        let kept = (u64_at(file, 96) as usize).saturating_mul(48).min(file.len() - 128);
        let state = crc32c_seeded(u64_at(file, 24), &[&file[128 + kept..]]);
        let kept = crc32c(&file[128..128 + kept]);
        put(file, 84, kept);
        put(file, 112, state);
        let head = crc32c_seeded(0, &[&file[8..12], &file[16..128]]);
        put(file, 12, head);
    }
    let segments = disk.0.iter_mut().filter(|(name, file)| name.contains("/seg") && file.len() >= 4160);
    let mut segments: Vec<_> = segments.collect();
    segments.sort_by_key(|(_, file)| u64_at(file, 16));
    let mut crcs: BTreeMap<(u64, u64), u32> = BTreeMap::new();
    for (name, file) in segments {
        if let Some(crc) = crcs.get(&(u64_at(file, 32), u64_at(file, 40))) {
            put(file, 52, *crc);
        }
        let slot = name.trim_end_matches(".log").rsplit('-').next().and_then(|slot| slot.parse().ok());
        let page = crc32c_seeded(slot.unwrap_or(0), &[&file[8..12], &file[16..64]]);
        put(file, 12, page);
        seal_flushes(file, &mut crcs);
    }
}

fn seal_flushes(file: &mut [u8], crcs: &mut BTreeMap<(u64, u64), u32>) {
    let (salt, mut at) = (u32_at(file, 52), 4096);
    let mut link = salt;
    while file.len() >= at + 4096 && file[at..].starts_with(b"WSFL") {
        let (generation, flush) = (u64_at(file, at + 8), u64_at(file, at + 16));
        let (head, mut frames, mut frame) = (u32_at(file, at + 44) as usize, Vec::new(), at + 64);
        for _ in 0..u32_at(file, at + 48) {
            if frame + 48 > file.len().min(at + head) {
                break;
            }
            let (length, apart) = (u32_at(file, frame + 32) as usize, file[frame + 9] & 1 != 0);
            let start = if apart { at + (u32_at(file, frame + 36) as usize) * 4096 } else { frame + 48 };
            if let Some(payload) = file.get(start..).and_then(|rest| rest.get(..length)) {
                let crc = crc32c(payload);
                put(file, frame + 4, crc);
            }
            let crc = frame_crc(&file[frame..], generation, flush, frame);
            put(file, frame, crc);
            frames.extend_from_slice(&crc.to_le_bytes());
            frame = (frame + 48 + if apart { 0 } else { length }).next_multiple_of(8);
        }
        put(file, at + 32, link);
        put(file, at + 36, crc32c(&frames));
        link = flush_crc(&file[at..], salt, at);
        put(file, at + 4, link);
        crcs.insert((generation, flush), link);
        at += (u32_at(file, at + 40) as usize).next_multiple_of(4096).max(4096);
    }
}
