//! What changes the committed offsets of a consumer group: the bodies of commit and forget.
//!
//! ```text
//! commit  0 group length u16, group
//!           offset count u32
//!           offsets: log u64, offset u64, has epoch u8, [epoch u32], metadata length u16, metadata
//! forget  0 group length u16, group
//!           what u8: 0 those of the named logs, 1 all of the group
//!           0: log count u32, logs u64 each
//!           1: unless committed since u64 (ms; all ones = in any case)
//! ```
//! Numbers are little endian, texts are UTF-8, nothing may follow. Where a log is named twice the last one counts.

use base::{Put, Reader};

use crate::QueueId;
use crate::record::Damaged;

/// One offset of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitOffset<'a> {
    /// Of which log.
    pub log: QueueId,
    /// The next offset to read.
    pub offset: u64,
    /// The leader epoch of the record before it.
    pub epoch: Option<u32>,
    /// Whatever the client wants to remember; the caller has bounded it.
    pub metadata: &'a str,
}

/// A commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit<'a> {
    /// The consumer group.
    pub group: &'a str,
    /// Its offsets.
    pub offsets: Vec<CommitOffset<'a>>,
}

/// Which offsets are to be forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Forgotten {
    /// Those of these logs.
    Logs(Vec<QueueId>),
    /// All, unless something was committed at this time (of the coordinator, ms) or later. `u64::MAX`: in any case.
    UnlessSince(u64),
}

/// Offsets to be forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forget<'a> {
    /// The consumer group.
    pub group: &'a str,
    /// What of it.
    pub what: Forgotten,
}

impl<'a> Commit<'a> {
    /// Appends the body. The caller has bounded the texts to 65,535 bytes each.
    pub fn encode(&self, out: &mut impl Put) {
        put_text(self.group, out);
        out.put_u32_le(self.offsets.len() as u32);
        for committed in &self.offsets {
            out.put_u64_le(committed.log.0);
            out.put_u64_le(committed.offset);
            out.put_u8(u8::from(committed.epoch.is_some()));
            if let Some(epoch) = committed.epoch {
                out.put_u32_le(epoch);
            }
            put_text(committed.metadata, out);
        }
    }

    /// Reads a body.
    pub fn decode(bytes: &'a [u8]) -> Result<Commit<'a>, Damaged> {
        let mut body = Reader::new(bytes);
        let group = text(&mut body)?;
        let mut offsets = Vec::new();
        for _ in 0..body.u32_le()? {
            let (log, offset) = (QueueId(body.u64_le()?), body.u64_le()?);
            let epoch = match body.u8()? {
                0 => None,
                1 => Some(body.u32_le()?),
                _ => return Err(Damaged("a committed offset has an unknown epoch")),
            };
            offsets.push(CommitOffset { log, offset, epoch, metadata: text(&mut body)? });
        }
        nothing_behind(&body)?;
        Ok(Commit { group, offsets })
    }
}

impl<'a> Forget<'a> {
    /// Appends the body. The caller has bounded the group's name to 65,535 bytes.
    pub fn encode(&self, out: &mut impl Put) {
        put_text(self.group, out);
        match &self.what {
            Forgotten::Logs(logs) => {
                out.put_u8(0);
                out.put_u32_le(logs.len() as u32);
                logs.iter().for_each(|log| out.put_u64_le(log.0));
            }
            Forgotten::UnlessSince(time_ms) => {
                out.put_u8(1);
                out.put_u64_le(*time_ms);
            }
        }
    }

    /// Reads a body.
    pub fn decode(bytes: &'a [u8]) -> Result<Forget<'a>, Damaged> {
        let mut body = Reader::new(bytes);
        let group = text(&mut body)?;
        let what = match body.u8()? {
            0 => {
                let mut logs = Vec::new();
                for _ in 0..body.u32_le()? {
                    logs.push(QueueId(body.u64_le()?));
                }
                Forgotten::Logs(logs)
            }
            1 => Forgotten::UnlessSince(body.u64_le()?),
            _ => return Err(Damaged("what is to be forgotten is unknown")),
        };
        nothing_behind(&body)?;
        Ok(Forget { group, what })
    }
}

fn put_text(text: &str, out: &mut impl Put) {
    out.put_u16_le(text.len() as u16);
    out.put(text.as_bytes());
}

fn text<'a>(body: &mut Reader<'a>) -> Result<&'a str, Damaged> {
    let length = usize::from(body.u16_le()?);
    std::str::from_utf8(body.bytes(length)?).map_err(|_| Damaged("a text of a consumer group is not UTF-8"))
}

fn nothing_behind(body: &Reader<'_>) -> Result<(), Damaged> {
    if body.is_empty() { Ok(()) } else { Err(Damaged("bytes stand behind offsets")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit() -> Commit<'static> {
        let first = CommitOffset { log: QueueId(3), offset: 5, epoch: Some(1), metadata: "m" };
        let second = CommitOffset { log: QueueId(4), offset: 6, epoch: None, metadata: "" };
        Commit { group: "gr", offsets: vec![first, second] }
    }

    #[test]
    fn the_drawing_of_a_commit_holds() {
        let mut bytes = Vec::new();
        commit().encode(&mut bytes);
        #[rustfmt::skip]
        let golden = [
            2, 0, b'g', b'r',  2, 0, 0, 0,
            3, 0, 0, 0, 0, 0, 0, 0,  5, 0, 0, 0, 0, 0, 0, 0,  1, 1, 0, 0, 0,  1, 0, b'm',
            4, 0, 0, 0, 0, 0, 0, 0,  6, 0, 0, 0, 0, 0, 0, 0,  0,  0, 0,
        ];
        assert_eq!(bytes, golden);
        assert_eq!(Commit::decode(&golden), Ok(commit()));
    }

    #[test]
    fn the_drawing_of_a_forget_holds() {
        let mut bytes = Vec::new();
        let logs = Forget { group: "g", what: Forgotten::Logs(vec![QueueId(7)]) };
        logs.encode(&mut bytes);
        let golden = [1, 0, b'g', 0, 1, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(bytes, golden);
        assert_eq!(Forget::decode(&golden), Ok(logs));
        let mut bytes = Vec::new();
        let all = Forget { group: "g", what: Forgotten::UnlessSince(0x0102) };
        all.encode(&mut bytes);
        assert_eq!(bytes, [1, 0, b'g', 1, 2, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Forget::decode(&bytes), Ok(all));
    }

    #[test]
    fn no_cut_no_tail_and_no_flip_is_more_than_refused() {
        let (mut bytes, mut forget) = (Vec::new(), Vec::new());
        commit().encode(&mut bytes);
        Forget { group: "g", what: Forgotten::Logs(vec![QueueId(7)]) }.encode(&mut forget);
        for whole in [&bytes, &forget] {
            for cut in 0..whole.len() {
                assert!(Commit::decode(&whole[..cut]).is_err() && Forget::decode(&whole[..cut]).is_err());
            }
        }
        for at in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut flipped = bytes.clone();
                flipped[at] = value;
                // Either reads as something or is refused; what is read reads the same again.
                if let Ok(commit) = Commit::decode(&flipped) {
                    let mut again = Vec::new();
                    commit.encode(&mut again);
                    assert_eq!(again, flipped);
                }
            }
        }
        bytes.push(0);
        assert!(Commit::decode(&bytes).is_err());
    }
}
