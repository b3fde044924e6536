//! Which requests are understood, in which versions, and from which version on each is flexible.
//!
//! What is not in [`APIS`] is neither advertised nor answered. Never: what a request does.

/// One kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Api {
    /// Its number on the wire.
    pub key: i16,
    /// The oldest version that is advertised.
    pub min: i16,
    /// The newest version that is understood.
    pub max: i16,
    /// The first flexible version; `i16::MAX` where there is none.
    pub flexible: i16,
}

macro_rules! apis {
    ($($name:ident $key:literal: $min:literal..=$max:literal, $flexible:expr;)*) => {
        $(#[allow(missing_docs)] pub const $name: i16 = $key;)*
        /// Every kind of request that is understood, by number.
        pub const APIS: &[Api] = &[$(Api { key: $key, min: $min, max: $max, flexible: $flexible }),*];
    };
}

const NEVER: i16 = i16::MAX;

// Produce is advertised from 0 on although only 3 and later are taken: older clients switch compression off for good
// where 0 is not in the range. JoinGroup likewise begins with 0.
apis! {
    PRODUCE 0: 0..=13, 9;
    FETCH 1: 4..=16, 12;
    LIST_OFFSETS 2: 1..=10, 6;
    METADATA 3: 0..=13, 9;
    OFFSET_COMMIT 8: 2..=9, 8;
    OFFSET_FETCH 9: 1..=9, 6;
    FIND_COORDINATOR 10: 0..=5, 3;
    JOIN_GROUP 11: 0..=9, 6;
    HEARTBEAT 12: 0..=4, 4;
    LEAVE_GROUP 13: 0..=5, 4;
    SYNC_GROUP 14: 0..=5, 4;
    DESCRIBE_GROUPS 15: 0..=6, 5;
    LIST_GROUPS 16: 0..=5, 3;
    SASL_HANDSHAKE 17: 0..=1, NEVER;
    API_VERSIONS 18: 0..=4, 3;
    CREATE_TOPICS 19: 2..=7, 5;
    DELETE_TOPICS 20: 1..=6, 4;
    DELETE_RECORDS 21: 0..=2, 2;
    INIT_PRODUCER_ID 22: 0..=5, 2;
    OFFSET_FOR_LEADER_EPOCH 23: 2..=4, 4;
    DESCRIBE_CONFIGS 32: 1..=4, 4;
    ALTER_CONFIGS 33: 0..=2, 2;
    DESCRIBE_LOG_DIRS 35: 1..=4, 2;
    SASL_AUTHENTICATE 36: 0..=2, 2;
    CREATE_PARTITIONS 37: 0..=3, 2;
    DELETE_GROUPS 42: 0..=2, 2;
    INCREMENTAL_ALTER_CONFIGS 44: 0..=1, 1;
    OFFSET_DELETE 47: 0..=0, NEVER;
    DESCRIBE_CLUSTER 60: 0..=1, 0;
    DESCRIBE_PRODUCERS 61: 0..=0, 0;
}

/// The kind of request with this number.
pub fn api_of(key: i16) -> Option<&'static Api> {
    APIS.iter().find(|api| api.key == key)
}

impl Api {
    /// Whether this version is understood.
    pub fn takes(&self, version: i16) -> bool {
        (self.min..=self.max).contains(&version)
    }

    /// Whether this version is flexible.
    pub fn is_flexible(&self, version: i16) -> bool {
        version >= self.flexible
    }
}
