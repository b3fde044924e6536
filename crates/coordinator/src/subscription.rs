//! The names of topics in a consumer's subscription.
//!
//! ```text
//! version i16, count of topics i32, per topic: length i16, UTF-8 bytes; whatever follows is not read
//! ```
//! Numbers are big endian.

use base::Reader;

/// Whether a consumer subscribed to `topic`; `None` where its bytes cannot be read.
pub(crate) fn names(metadata: &[u8], topic: &str) -> Option<bool> {
    let mut reader = Reader::new(metadata);
    reader.i16_be().ok()?;
    let mut found = false;
    for _ in 0..reader.i32_be().ok()? {
        let length = usize::try_from(reader.i16_be().ok()?).ok()?;
        found |= reader.bytes(length).ok()? == topic.as_bytes();
    }
    Some(found)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use base::Put;

    pub(crate) fn subscription(topics: &[&str]) -> Vec<u8> {
        let mut bytes = vec![0, 1];
        bytes.put_u32_be(topics.len() as u32);
        for topic in topics {
            bytes.put_u16_be(topic.len() as u16);
            bytes.put(topic.as_bytes());
        }
        bytes
    }

    #[test]
    fn topics_are_found_and_damage_is_not_believed() {
        let bytes = [0, 3, 0, 0, 0, 2, 0, 1, b'a', 0, 2, b'b', b'c', 0xff, 0xff];
        assert_eq!(
            (names(&bytes, "a"), names(&bytes, "bc"), names(&bytes, "b")),
            (Some(true), Some(true), Some(false))
        );
        assert_eq!(subscription(&["a", "bc"])[2..], bytes[2..13]);
        for damaged in
            [&bytes[..12], &bytes[..3], &[], &[0, 0, 0x7f, 0xff, 0xff, 0xff], &[0, 0, 0, 0, 0, 1, 0xff, 0xff]]
        {
            assert_eq!(names(damaged, "a"), None, "{damaged:?}");
        }
    }
}
