//! Requests of readers by offset: resolved to logs here, asked of their hosts, and put together again.

mod append;
mod fetch;
mod gather;
mod groups;
mod partitions;
mod refused;
mod topics;

use model::{ConnId, Event, LogAnswer, LogRefusal, LogRequest};

use crate::Broker;
pub(crate) use gather::{Gather, Part};
pub(crate) use partitions::Partitions;
pub(crate) use refused::RefusedBatches;
pub(crate) use topics::PendingTopics;

/// The last number that an id of a producer has room for.
const PRODUCERS_MAX: u64 = (1 << 31) - 1;

impl Broker {
    /// A request by offset of an admitted connection.
    pub(crate) fn log_request(&mut self, conn: ConnId, token: u64, request: LogRequest<'_>) {
        let entered = self.door.connections.get(&conn).is_some_and(|connection| connection.vhost.is_some());
        if !entered {
            return;
        }
        match request {
            LogRequest::Append(append) => self.append_batch(conn, token, &append),
            LogRequest::Fetch(fetch) => self.fetch(conn, token, &fetch),
            LogRequest::Offsets(queries) => self.offsets(conn, token, &queries),
            LogRequest::EpochEnds(queries) => self.epoch_ends(conn, token, &queries),
            LogRequest::Trim(queries) => self.trim(conn, token, &queries),
            LogRequest::Partitions(wanted) => self.partition_figures(conn, token, wanted),
            LogRequest::Topics(wanted) => self.topics(conn, token, wanted),
            LogRequest::CreateTopics { topics, validate_only } => {
                self.create_topics(conn, token, topics, validate_only);
            }
            LogRequest::CreatePartitions { topics, validate_only } => {
                self.create_partitions(conn, token, topics, validate_only);
            }
            LogRequest::DeleteTopics(topics) => self.delete_topics(conn, token, &topics),
            LogRequest::AlterTopics { topics, validate_only, replace } => {
                self.alter_topics(conn, token, topics, validate_only, replace);
            }
            LogRequest::Producer => {
                let id = self.draw_producer_id();
                self.answer_log(conn, token, LogAnswer::Producer(id));
            }
            LogRequest::Group(request) => self.group_request(conn, token, request),
            LogRequest::Cancel { token } => self.cancel(conn, token),
        }
    }

    /// A producer id that nobody was given before: node, shard and start number make it unique, a count does the rest.
    /// When one start has given out two billion there is none left, and that is said: one given out twice could make
    /// a log take one producer's batch for a repeat of another's.
    ///
    /// ```text
    /// 63 sign 0 | 62..55 node (8 bits) | 54..47 shard (8) | 46..31 start (16) | 30..0 count (31)
    /// ```
    fn draw_producer_id(&mut self) -> Result<u64, LogRefusal> {
        let (node, shard) = (u64::from(self.settings.node.0), u64::from(self.settings.shard.0));
        let boot = u64::from(self.settings.boot);
        let count = self.door.producers;
        if count > PRODUCERS_MAX {
            let text = "this shard has given out all producer ids of this start";
            return Err(LogRefusal::Unavailable(text.to_owned(), false));
        }
        self.door.producers += 1;
        Ok((node & 0xff) << 55 | (shard & 0xff) << 47 | (boot & 0xffff) << 31 | count)
    }

    /// Answers a request by offset.
    pub(crate) fn answer_log(&mut self, conn: ConnId, token: u64, answer: LogAnswer) {
        self.events.push_back((conn, Event::Log(token, Box::new(answer))));
    }

    /// The name of the connection's virtual host.
    fn vhost_of(&self, conn: ConnId) -> std::sync::Arc<str> {
        let vhost = self.door.connections.get(&conn).and_then(|connection| connection.vhost.clone());
        vhost.unwrap_or_else(|| "".into())
    }
}

/// The refusal of what a host should have answered and did not, because it is gone.
fn unanswered() -> LogRefusal {
    LogRefusal::Unavailable("the host of this partition did not answer".to_owned(), true)
}
