//! Reads source files as code: what stays when comments and the insides of strings are blanked.
//!
//! In: text of a Rust file. Out: text of the same length and lines, safe to search for names.
//! Never: parses Rust; it knows comments, strings, characters and lifetimes, and nothing else.

/// The text with comments and the contents of strings replaced by spaces.
pub fn code_only(text: &str) -> String {
    let mut scan = Scan { bytes: text.as_bytes(), at: 0, kept: Vec::with_capacity(text.len()) };
    while scan.at < scan.bytes.len() {
        scan.step();
    }
    String::from_utf8_lossy(&scan.kept).into_owned()
}

struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
    kept: Vec<u8>,
}

impl Scan<'_> {
    fn rest(&self) -> &[u8] {
        &self.bytes[self.at..]
    }

    fn keep(&mut self, count: usize) {
        let end = (self.at + count).min(self.bytes.len());
        self.kept.extend_from_slice(&self.bytes[self.at..end]);
        self.at = end;
    }

    fn blank(&mut self, count: usize) {
        let end = (self.at + count).min(self.bytes.len());
        self.kept
            .extend(self.bytes[self.at..end].iter().map(|byte| if *byte == b'\n' { b'\n' } else { b' ' }));
        self.at = end;
    }

    /// How many bytes until `end` is behind, or all there are.
    fn until(&self, from: usize, end: &[u8]) -> usize {
        let found =
            self.rest().get(from..).and_then(|rest| rest.windows(end.len()).position(|window| window == end));
        found.map_or(self.rest().len(), |place| from + place + end.len())
    }

    fn step(&mut self) {
        let inside_a_name =
            self.kept.last().is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
        match self.rest() {
            [b'/', b'/', ..] => self.blank(self.until(0, b"\n").saturating_sub(1).max(1)),
            [b'/', b'*', ..] => self.block_comment(),
            [b'r', b'"' | b'#', ..] if !inside_a_name => self.raw_string(1),
            [b'b', b'r', b'"' | b'#', ..] if !inside_a_name => self.raw_string(2),
            [b'"', ..] => self.string(),
            [b'\'', ..] => self.character_or_lifetime(),
            _ => self.keep(1),
        }
    }

    fn block_comment(&mut self) {
        let (mut depth, mut end) = (0_usize, 0);
        while let Some(pair) = self.rest().get(end..end + 2) {
            match pair {
                b"/*" => depth += 1,
                b"*/" => depth -= 1,
                _ => {
                    end += 1;
                    continue;
                }
            }
            end += 2;
            if depth == 0 {
                return self.blank(end);
            }
        }
        self.blank(usize::MAX / 2);
    }

    fn raw_string(&mut self, prefix: usize) {
        let hashes = self.rest()[prefix..].iter().take_while(|byte| **byte == b'#').count();
        if self.rest().get(prefix + hashes) != Some(&b'"') {
            return self.keep(prefix); // A raw name such as r#type.
        }
        let end = [vec![b'"'], vec![b'#'; hashes]].concat();
        self.blank(self.until(prefix + hashes + 1, &end));
    }

    fn string(&mut self) {
        let mut end = 1;
        while let Some(byte) = self.rest().get(end) {
            match byte {
                b'\\' => end += 2,
                b'"' => break,
                _ => end += 1,
            }
        }
        self.blank(end + 1);
    }

    fn character_or_lifetime(&mut self) {
        let character = match self.rest() {
            [_, b'\\', ..] => true,
            rest => String::from_utf8_lossy(&rest[..rest.len().min(6)]).chars().nth(2) == Some('\''),
        };
        if !character {
            return self.keep(1);
        }
        let after_first = if self.rest().get(1) == Some(&b'\\') { 3 } else { 1 };
        self.blank(self.until(after_first, b"'"));
    }
}

#[cfg(test)]
mod tests {
    use super::code_only;

    #[test]
    fn comments_and_strings_are_blanked_and_code_stays() {
        let text = "a // std::fs\nb /* std::fs /* deep */ std::net */ c \"std::fs \\\" std::net\" d r#\"std::fs\"# e b\"x\" f";
        let left = code_only(text);
        assert_eq!(left.len(), text.len());
        assert!(!left.contains("std"));
        for name in ["a", "b", "c", "d", "e", "f"] {
            assert!(left.split_whitespace().any(|word| word == name), "{name} in {left}");
        }
    }

    #[test]
    fn quotes_of_characters_and_lifetimes_do_not_open_strings() {
        let text = "fn f<'a>(x: &'a str) { let q = '\"'; let e = '\\''; let u = 'ü'; std::fs::read(x) }";
        assert!(code_only(text).contains("std::fs::read"));
        assert!(code_only("let r#type = 1; std::net").contains("std::net"));
        assert!(code_only("variable_r\"x\" std::fs").contains("std::fs"));
    }

    #[test]
    fn what_never_ends_is_blank_to_the_end() {
        for text in ["\"std::fs", "/* std::fs", "r#\"std::fs", "'\\", "// std::fs"] {
            assert!(!code_only(text).contains("std"), "{text}");
            assert_eq!(code_only(text).len(), text.len());
        }
    }
}
