//! Every bound that a client or a disk could push against has its name and default here.

/// Bounds of one node; all configurable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Body bytes of one message.
    pub message_bytes_max: usize,
    /// Bytes of one request of Kafka; a larger one ends its connection.
    pub request_bytes_max: usize,
    /// Bytes of one entry before it is sealed; a larger record travels in parts.
    pub entry_bytes_max: usize,
    /// Bytes of one AMQP frame offered in tune, header and end included.
    pub frame_bytes_max: u32,
    /// Channels of one connection, offered in tune.
    pub channels_max: u16,
    /// Heartbeat interval offered in tune, seconds; 0 switches heartbeats off.
    pub heartbeat_s: u16,
    /// Milliseconds from accept to authenticated and opened.
    pub handshake_ms: u64,
    /// Bytes a connection may send before it is authenticated.
    pub unauthenticated_bytes_max: usize,
    /// Bytes decoded per connection and turn, so that one connection does not starve another.
    pub turn_bytes_max: usize,
    /// Bytes of incomplete messages and parked frames per connection.
    pub partial_bytes_max: usize,
    /// Published bytes of one connection that are not committed yet; beyond it the socket is not read.
    pub unconfirmed_bytes_max: usize,
    /// Bytes proposed to one group and not committed yet; beyond it publishes wait in order.
    pub uncommitted_bytes_max: usize,
    /// Milliseconds a publish or batch waits for its group before it is refused. It was not taken there, but with several queues
    /// it may have been elsewhere.
    pub park_ms_max: u64,
    /// Bytes waiting to be sent on one connection before deliveries to it pause.
    pub send_bytes_max: usize,
    /// Milliseconds a settlement may wait for an entry to ride on.
    pub settle_delay_ms: u64,
    /// Nesting depth of tables and lists.
    pub nesting_max: u8,
    /// Consumers of one connection.
    pub consumers_max: u32,
    /// Queues of one node.
    pub queues_max: u32,
    /// Bindings of one node.
    pub bindings_max: u32,
    /// Exchanges of one node.
    pub exchanges_max: u32,
    /// Connections of one node.
    pub connections_max: u32,
    /// Bytes of entries kept in memory for readers that keep up, per shard.
    pub cache_bytes_max: usize,
    /// Bytes of reads under way from disk, per shard.
    pub read_bytes_max: usize,
    /// Milliseconds that committed offsets outlive the last member of their consumer group, or the last commit of one
    /// without members.
    pub offsets_retention_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            message_bytes_max: 16 << 20,
            request_bytes_max: 100 << 20,
            entry_bytes_max: 1 << 20,
            frame_bytes_max: 131_072,
            channels_max: 2047,
            heartbeat_s: 60,
            handshake_ms: 10_000,
            unauthenticated_bytes_max: 16 << 10,
            turn_bytes_max: 256 << 10,
            partial_bytes_max: 32 << 20,
            unconfirmed_bytes_max: 64 << 20,
            uncommitted_bytes_max: 64 << 20,
            park_ms_max: 30_000,
            send_bytes_max: 1 << 20,
            settle_delay_ms: 10,
            nesting_max: 32,
            consumers_max: 10_000,
            queues_max: 1_000_000,
            bindings_max: 1_000_000,
            exchanges_max: 100_000,
            connections_max: 100_000,
            cache_bytes_max: 64 << 20,
            read_bytes_max: 16 << 20,
            offsets_retention_ms: 7 * 24 * 3_600_000,
        }
    }
}
