//! The configuration file's text and environment variables laid over it: refused with a message, never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use runtime::config::ENVIRONMENT;
use runtime::{Config, Flags};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // Lines behind the first 0 byte are variables.
    let (text, variables) = text.split_once('\0').unwrap_or((text, ""));
    let variables = variables.lines().filter_map(|line| line.split_once('='));
    let variables = variables.map(|(key, value)| (format!("{ENVIRONMENT}{key}"), value.to_owned()));
    match Config::read("file", text, variables, Flags::default()) {
        Ok(config) => {
            assert!(!config.listen.is_empty() && !config.users.is_empty());
            assert!(config.segment_bytes.is_multiple_of(1 << 20));
            assert!(config.shards != Some(0) && config.groups != Some(0));
        }
        Err(complaint) => assert!(!complaint.is_empty()),
    }
});
