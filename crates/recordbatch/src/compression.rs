//! The codecs of batches: opening what came under a budget, and compressing again what compaction thinned out.
//!
//! Snappy comes in the framing of the Java library (a magic, two versions, chunks with their lengths) or bare;
//! LZ4 and Zstandard in their frame formats, gzip in members.
//!
//! In: compressed bytes and the most that may come out. Out: the records. Never: holds more than the budget and a
//! codec's window, whatever the bytes claim.

use std::io::Read;

use base::Put;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};

use crate::error::BatchError;
use crate::header::Header;

const BROKEN: BatchError = BatchError::Corrupt("the records of a batch cannot be decompressed");
const XERIAL_MAGIC: &[u8] = b"\x82SNAPPY\0";
const XERIAL_CHUNK: usize = 32 << 10;
/// A window that every reader of Zstandard must be able to hold.
const WINDOW_MIN: usize = 8 << 20;
/// Snappy's densest element makes 64 bytes of three; no input of it grows beyond this factor.
const SNAPPY_MOST: usize = 32;

/// How the records of a batch are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // The names say it.
pub enum Codec {
    None = 0,
    Gzip = 1,
    Snappy = 2,
    Lz4 = 3,
    Zstd = 4,
}

impl Codec {
    /// The codec that the attributes name.
    pub fn of(header: &Header) -> Result<Codec, BatchError> {
        let all = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
        all.get(usize::from(header.codec_bits())).copied().ok_or(BatchError::UnknownCompression)
    }
}

/// What `bytes` decompress to, at most `budget` bytes.
pub(crate) fn decompress(codec: Codec, bytes: &[u8], budget: usize) -> Result<Vec<u8>, BatchError> {
    let mut out = Vec::new();
    match codec {
        Codec::None => match bytes.len() <= budget {
            true => out.put(bytes),
            false => return Err(BatchError::OverBudget),
        },
        Codec::Gzip => drain(flate2::read::MultiGzDecoder::new(bytes), budget, &mut out)?,
        Codec::Snappy => unsnap(bytes, budget, &mut out)?,
        Codec::Lz4 => drain(lz4_flex::frame::FrameDecoder::new(bytes), budget, &mut out)?,
        Codec::Zstd => unzstd(bytes, budget, &mut out)?,
    }
    Ok(out)
}

/// Reads to the end, but never more than the budget.
fn drain(mut from: impl Read, budget: usize, out: &mut Vec<u8>) -> Result<(), BatchError> {
    let left = budget - out.len();
    let taken = from.by_ref().take(left as u64).read_to_end(out).map_err(|_| BROKEN)?;
    let is_over = taken == left && from.read(&mut [0]).map_err(|_| BROKEN)? > 0;
    if is_over { Err(BatchError::OverBudget) } else { Ok(()) }
}

fn unsnap(bytes: &[u8], budget: usize, out: &mut Vec<u8>) -> Result<(), BatchError> {
    let Some(chunks) = bytes.strip_prefix(XERIAL_MAGIC) else { return unsnap_chunk(bytes, budget, out) };
    let mut reader = base::Reader::new(chunks);
    reader.bytes(8).map_err(|_| BROKEN)?;
    while !reader.is_empty() {
        let length = reader.u32_be().map_err(|_| BROKEN)? as usize;
        unsnap_chunk(reader.bytes(length).map_err(|_| BROKEN)?, budget, out)?;
    }
    Ok(())
}

fn unsnap_chunk(chunk: &[u8], budget: usize, out: &mut Vec<u8>) -> Result<(), BatchError> {
    let length = snap::raw::decompress_len(chunk).map_err(|_| BROKEN)?;
    if length > budget - out.len() {
        return Err(BatchError::OverBudget);
    }
    if length > chunk.len().saturating_mul(SNAPPY_MOST) {
        return Err(BROKEN);
    }
    let start = out.len();
    out.resize(start + length, 0);
    let written = snap::raw::Decoder::new().decompress(chunk, &mut out[start..]).map_err(|_| BROKEN)?;
    if written == length { Ok(()) } else { Err(BROKEN) }
}

fn unzstd(mut bytes: &[u8], budget: usize, out: &mut Vec<u8>) -> Result<(), BatchError> {
    let window = budget.max(WINDOW_MIN) as u64;
    while !bytes.is_empty() {
        match ruzstd::decoding::StreamingDecoder::new_with_max_window_size(&mut bytes, window) {
            Ok(decoder) => drain(decoder, budget, out)?,
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                length, ..
            })) => bytes = bytes.get(length as usize..).ok_or(BROKEN)?,
            Err(_) => return Err(BROKEN),
        }
    }
    Ok(())
}

/// The compressed form of `records`.
pub(crate) fn compress(codec: Codec, records: &[u8]) -> Vec<u8> {
    const INFALLIBLE: &str = "writing to memory does not fail";
    match codec {
        Codec::None => records.to_vec(),
        Codec::Gzip => {
            let mut out = Vec::new();
            let level = flate2::Compression::default();
            flate2::read::GzEncoder::new(records, level).read_to_end(&mut out).expect(INFALLIBLE);
            out
        }
        Codec::Snappy => snapped(records),
        Codec::Lz4 => {
            let info = lz4_flex::frame::FrameInfo::new().block_mode(lz4_flex::frame::BlockMode::Independent);
            let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
            std::io::Write::write_all(&mut encoder, records).expect(INFALLIBLE);
            encoder.finish().expect(INFALLIBLE)
        }
        Codec::Zstd => {
            ruzstd::encoding::compress_to_vec(records, ruzstd::encoding::CompressionLevel::Fastest)
        }
    }
}

fn snapped(records: &[u8]) -> Vec<u8> {
    let mut out = XERIAL_MAGIC.to_vec();
    out.put_u32_be(1);
    out.put_u32_be(1);
    let mut encoder = snap::raw::Encoder::new();
    for chunk in records.chunks(XERIAL_CHUNK) {
        let compressed = encoder.compress_vec(chunk).expect("a chunk is within what the codec takes");
        out.put_u32_be(compressed.len() as u32);
        out.put(&compressed);
    }
    out
}
