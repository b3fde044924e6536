//! The flush being filled: frames gather in one head block, large payloads are carried along as they are.

use base::{Block, BlockBuilder, PAGE, Pool, Put, crc32c};
use model::{GroupId, Index};

use crate::flush::{FLUSH_HEADER, FlushHeader};
use crate::frame::{self, FRAME_HEADER, Frame, Kind, Place};
use crate::segment::Link;

/// Payloads of this size and more are written from their own block instead of being copied into the head.
pub(crate) const APART_MIN: usize = 32 << 10;

/// A frame and where its header stands in the head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OpenFrame {
    pub kind: Kind,
    pub group: GroupId,
    pub index: Index,
    pub head: u32,
    apart: bool,
}

/// A flush being filled.
#[derive(Debug)]
pub(crate) struct OpenFlush {
    pub number: u64,
    pub frames: Vec<OpenFrame>,
    head: BlockBuilder,
    apart: Vec<Block>,
    apart_bytes: usize,
}

/// A flush with its place, ready to be written.
pub(crate) struct Sealed {
    pub blocks: Vec<Block>,
    pub link: Link,
    pub frames: Vec<OpenFrame>,
    pub bytes: usize,
}

impl OpenFlush {
    /// An empty one. `frames` is memory to reuse.
    pub fn new(number: u64, pool: &Pool, mut frames: Vec<OpenFrame>) -> OpenFlush {
        frames.clear();
        let mut head = pool.builder(PAGE);
        head.extend(FLUSH_HEADER).fill(0);
        OpenFlush { number, frames, head, apart: Vec::new(), apart_bytes: 0 }
    }

    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// The ordinal of the next frame.
    pub fn ordinal(&self) -> u32 {
        self.frames.len() as u32
    }

    /// Bytes it takes on disk.
    pub fn bytes(&self) -> usize {
        self.head.len().next_multiple_of(PAGE) + self.apart_bytes
    }

    /// Adds an entry; returns the checksum of its payload.
    pub fn entry(&mut self, frame: Frame, payload: &Block) -> u32 {
        let apart = payload.len() >= APART_MIN;
        let payload_crc = crc32c(payload.as_slice());
        let length = payload.len() as u32;
        self.push(Frame { length, payload_crc, apart: apart.then_some(0), ..frame });
        if apart {
            self.apart_bytes += payload.padded().len();
            self.apart.push(payload.clone());
        } else {
            self.head.put(payload.as_slice());
            let padding = self.head.len().next_multiple_of(8) - self.head.len();
            self.head.extend(padding).fill(0);
        }
        payload_crc
    }

    /// Adds a frame without a payload (or its header); returns where it stands in the head.
    pub fn push(&mut self, frame: Frame) -> u32 {
        let head = self.head.len() as u32;
        let (kind, group, index) = (frame.kind, frame.group, frame.index);
        self.frames.push(OpenFrame { kind, group, index, head, apart: frame.apart.is_some() });
        self.head.put(&frame.encode());
        head
    }

    /// Rewrites a frame header that [`OpenFlush::push`] wrote.
    pub fn rewrite(&mut self, head: u32, frame: &Frame) {
        self.head.as_mut_slice()[head as usize..][..FRAME_HEADER].copy_from_slice(&frame.encode());
    }

    /// Gives the flush its place behind `previous`: `offset` in the segment of that salt and of `header`'s generation.
    /// Tells `placed` where the payload of each frame comes to stand, by ordinal.
    pub fn seal(
        mut self,
        header: FlushHeader,
        previous: Link,
        (offset, salt): (u32, u32),
        mut placed: impl FnMut(u32, &OpenFrame, u32),
    ) -> Sealed {
        let bytes = self.bytes();
        let mut apart_at = self.head.len().next_multiple_of(PAGE);
        let mut apart = self.apart.iter();
        let mut crcs = Vec::with_capacity(4 * self.frames.len());
        for (ordinal, frame) in self.frames.iter().enumerate() {
            let at = frame.head as usize;
            let place =
                Place { generation: header.generation, flush: self.number, offset: offset + frame.head };
            let page = frame.apart.then_some((apart_at / PAGE) as u32);
            let payload = if frame.apart { apart_at } else { at + FRAME_HEADER };
            if frame.apart {
                apart_at += apart.next().expect("a frame apart has its block").padded().len();
            }
            let crc = frame::seal(&mut self.head.as_mut_slice()[at..at + FRAME_HEADER], page, place);
            crcs.put_u32_le(crc);
            placed(ordinal as u32, frame, offset + payload as u32);
        }
        let header = FlushHeader {
            number: self.number,
            previous: previous.number,
            link: previous.crc,
            frames_crc: crc32c(&crcs),
            length: bytes as u32,
            head_length: self.head.len() as u32,
            frames: self.frames.len() as u32,
            ..header
        };
        let (encoded, crc) = header.encode(offset, salt);
        self.head.as_mut_slice()[..FLUSH_HEADER].copy_from_slice(&encoded);
        let link =
            Link { generation: header.generation, number: self.number, end: offset + bytes as u32, crc };
        let mut blocks = Vec::with_capacity(2 + self.apart.len());
        blocks.push(self.head.freeze());
        blocks.append(&mut self.apart);
        Sealed { blocks, link, frames: self.frames, bytes }
    }
}
