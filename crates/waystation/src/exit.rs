//! Exit codes: what scripts may rely on.

/// Everything went well.
pub const OK: u8 = 0;
/// The check failed, or the node had to stop.
pub const FAILED: u8 = 1;
/// The command line is wrong.
pub const USAGE: u8 = 64;
/// An address cannot be listened on, or the node cannot be reached.
pub const UNAVAILABLE: u8 = 69;
/// The data directory cannot be used.
pub const DATA_DIR: u8 = 73;
/// The configuration is wrong.
pub const CONFIG: u8 = 78;

/// The codes for `--help`.
pub const TABLE: &str = "\
Exit codes:
    0  everything went well; a drained node ends with it too
    1  the check failed, or the node had to stop (the log says why)
   64  the command line is wrong
   69  an address cannot be listened on, or the node cannot be reached
   73  the data directory cannot be used (locked, written by a newer version, damaged)
   78  the configuration is wrong
  130  asked to end a second time while draining";

/// What went wrong, for a person and for a script.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub code: u8,
    /// The message.
    pub message: String,
}

/// A failure with the given code.
pub fn failure(code: u8, message: impl Into<String>) -> Failure {
    Failure { code, message: message.into() }
}
