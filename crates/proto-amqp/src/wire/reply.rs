//! Reply codes: number, name, and whether one ends the channel or the whole connection.

/// Why a channel or connection is closed, or a message comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
#[allow(missing_docs)] // The names are the specification's.
pub enum ReplyCode {
    NoRoute = 312,
    ConnectionForced = 320,
    AccessRefused = 403,
    NotFound = 404,
    ResourceLocked = 405,
    PreconditionFailed = 406,
    FrameError = 501,
    SyntaxError = 502,
    CommandInvalid = 503,
    ChannelError = 504,
    UnexpectedFrame = 505,
    ResourceError = 506,
    NotAllowed = 530,
    NotImplemented = 540,
    InternalError = 541,
}

impl ReplyCode {
    /// The number on the wire.
    pub fn number(self) -> u16 {
        self as u16
    }

    /// The word that begins reply texts.
    pub fn name(self) -> &'static str {
        match self {
            ReplyCode::NoRoute => "NO_ROUTE",
            ReplyCode::ConnectionForced => "CONNECTION_FORCED",
            ReplyCode::AccessRefused => "ACCESS_REFUSED",
            ReplyCode::NotFound => "NOT_FOUND",
            ReplyCode::ResourceLocked => "RESOURCE_LOCKED",
            ReplyCode::PreconditionFailed => "PRECONDITION_FAILED",
            ReplyCode::FrameError => "FRAME_ERROR",
            ReplyCode::SyntaxError => "SYNTAX_ERROR",
            ReplyCode::CommandInvalid => "COMMAND_INVALID",
            ReplyCode::ChannelError => "CHANNEL_ERROR",
            ReplyCode::UnexpectedFrame => "UNEXPECTED_FRAME",
            ReplyCode::ResourceError => "RESOURCE_ERROR",
            ReplyCode::NotAllowed => "NOT_ALLOWED",
            ReplyCode::NotImplemented => "NOT_IMPLEMENTED",
            ReplyCode::InternalError => "INTERNAL_ERROR",
        }
    }

    /// Whether it ends the connection, not only the channel.
    pub fn is_hard(self) -> bool {
        self == ReplyCode::ConnectionForced || self.number() >= 500
    }

    /// The text of a close: the name, a dash and the explanation, cut to what a short string holds.
    pub fn text(self, explanation: &str) -> String {
        let mut text = format!("{} - {explanation}", self.name());
        if text.len() > 255 {
            let cut = (0..=252).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            text.truncate(cut);
            text.push_str("...");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_fits_a_short_string_and_stays_text() {
        assert_eq!(ReplyCode::NotFound.text("no queue 'q'"), "NOT_FOUND - no queue 'q'");
        for length in 0..300 {
            let text = ReplyCode::NotFound.text(&"µ".repeat(length));
            assert!(text.len() <= 255, "{}", text.len());
            assert_eq!(text.ends_with("..."), 12 + 2 * length > 255);
        }
    }

    #[test]
    fn the_class_of_each_code() {
        for soft in [ReplyCode::NoRoute, ReplyCode::AccessRefused, ReplyCode::PreconditionFailed] {
            assert!(!soft.is_hard());
        }
        for hard in [ReplyCode::ConnectionForced, ReplyCode::FrameError, ReplyCode::NotAllowed] {
            assert!(hard.is_hard());
        }
    }
}
