//! Appending batches as they came: checked here, stored untouched.

use base::{Bug, planted};
use model::batch::{LOG_APPEND_TIME, Producer};
use model::topic::AppendBatch;
use model::{ConnId, LogAnswer, LogRefusal, QueueId};
use recordbatch::Rules;
use topology::TopicSettings;

use crate::door::outgoing::{Appending, Turn};
use crate::log_parcel::AppendAnswer;
use crate::{Broker, OPENED_BYTES_MAX};

impl Broker {
    /// Takes one batch for one partition. It is answered once it is durable on a majority and applied.
    pub(crate) fn append_batch(&mut self, conn: ConnId, token: u64, append: &AppendBatch<'_>) {
        if let Err(refusal) = self.try_append(conn, token, append) {
            self.counters.refusals += 1;
            self.answer_log(conn, token, LogAnswer::Appended(Err(refusal)));
        }
    }

    fn try_append(&mut self, conn: ConnId, token: u64, append: &AppendBatch<'_>) -> Result<(), LogRefusal> {
        let vhost = self.vhost_of(conn);
        let partitions = &mut self.door.partitions;
        let partition = match append.id {
            Some(id) => partitions.find_by_id(&self.topology, &vhost, id, append.partition)?,
            None => partitions.find(&self.topology, &vhost, append.topic, append.partition)?,
        };
        let target = partition.target;
        let (largest, log_append) =
            (partition.settings.max_message_bytes as usize, partition.settings.log_append_time);
        if append.batch.len() > largest {
            let text = format!("a batch of {} bytes where {largest} are allowed", append.batch.len());
            return Err(LogRefusal::TooLarge(text));
        }
        let checked = recordbatch::check(append.batch)?;
        let now_ms = self.now.wall_ms as i64;
        rules(&partition.settings, now_ms).check(append.batch, &checked, OPENED_BYTES_MAX)?;
        // The planted bug leaves the client's time.
        let is_stamped = log_append && !planted(Bug::KeepClientTime);
        let stamped = is_stamped.then(|| stamped(append.batch, now_ms));
        let mut summary = checked.summary(now_ms);
        if log_append {
            summary.flags |= LOG_APPEND_TIME;
            (summary.timestamp_min, summary.timestamp_max) = (now_ms, now_ms);
        }
        self.check_free(conn, target.queue, summary.producer)?;
        let body = stamped.as_deref().unwrap_or(append.batch);
        let bytes = body.len();
        let Some(connection) = self.door.connections.get_mut(&conn) else { return Ok(()) };
        let Some(at) = self.door.by_group.get(&target.group) else { return Err(super::unanswered()) };
        connection.unconfirmed_bytes += bytes;
        self.counters.published += u64::from(summary.count);
        self.counters.published_bytes += bytes as u64;
        let patience_ms = u64::from(append.timeout_ms).min(self.settings.limits.park_ms_max);
        let appending = Appending {
            conn,
            token,
            bytes,
            answer: append.required != 0,
            log_append_ms: log_append.then_some(now_ms),
            log: target.queue,
            producer: summary.producer,
            due_us: self.now.mono_us.saturating_add(patience_ms * 1000),
        };
        let turn = Turn { pool: &self.pool, limits: &self.settings.limits, now: self.now };
        self.door.outgoing[*at].append_batch(turn, &summary, body, appending);
        Ok(())
    }

    /// Refuses a batch where nothing is taken now, and one that follows a batch refused for that. What is full may be
    /// emptied, so the session's client is to try again.
    fn check_free(
        &mut self,
        conn: ConnId,
        log: QueueId,
        producer: Option<Producer>,
    ) -> Result<(), LogRefusal> {
        let numbered = producer.filter(|producer| producer.base_sequence >= 0);
        let Some(connection) = self.door.connections.get_mut(&conn) else { return Ok(()) };
        // The planted bug takes everything.
        if let Some(reason) = self.alarm.filter(|_| !planted(Bug::TakeWhileFull)) {
            numbered.inspect(|producer| connection.refused_batches.note(log, producer));
            return Err(LogRefusal::Unavailable(reason.to_owned(), false));
        }
        if numbered.is_some_and(|producer| connection.refused_batches.holds_back(log, &producer)) {
            let text = "an earlier batch of this producer was not taken and must come first";
            return Err(LogRefusal::Unavailable(text.to_owned(), false));
        }
        Ok(())
    }

    /// A batch waited for its group for too long. It will not be stored.
    pub(crate) fn batch_not_taken(&mut self, appending: &Appending) {
        let Appending { conn, token, bytes, log, producer, .. } = *appending;
        let Some(connection) = self.door.connections.get_mut(&conn) else { return };
        connection.unconfirmed_bytes = connection.unconfirmed_bytes.saturating_sub(bytes);
        if let Some(producer) = producer.filter(|producer| producer.base_sequence >= 0) {
            connection.refused_batches.note(log, &producer);
        }
        self.counters.refusals += 1;
        let text = "the partition's group takes nothing at the moment".to_owned();
        self.answer_log(conn, token, LogAnswer::Appended(Err(LogRefusal::Unavailable(text, false))));
    }

    /// An append was applied, or refused by the log's own rules.
    pub(crate) fn batch_appended(&mut self, appending: &Appending, outcome: Option<AppendAnswer>) {
        let Appending { conn, token, bytes, answer, log_append_ms, .. } = *appending;
        if let Some(connection) = self.door.connections.get_mut(&conn) {
            connection.unconfirmed_bytes = connection.unconfirmed_bytes.saturating_sub(bytes);
        }
        // The log was deleted between the check and the append.
        let outcome = outcome.unwrap_or(Err(LogRefusal::UnknownPartition));
        let outcome = outcome.map(|appended| {
            // A repeat has the time of what it repeats.
            let log_append_ms = log_append_ms.map(|now_ms| appended.log_append_ms.unwrap_or(now_ms));
            model::topic::Appended { log_append_ms, ..appended }
        });
        if answer || outcome.is_err() {
            self.answer_log(conn, token, LogAnswer::Appended(outcome));
        }
    }
}

/// The batch with the time of its append.
fn stamped(batch: &[u8], now_ms: i64) -> Vec<u8> {
    let mut batch = batch.to_vec();
    recordbatch::append_time(&mut batch, now_ms);
    batch
}

/// What this topic asks of records.
fn rules(settings: &TopicSettings, now_ms: i64) -> Rules {
    let (before, after) = (settings.timestamp_before_max_ms, settings.timestamp_after_max_ms);
    let times = (!settings.log_append_time).then(|| Rules::times_around(now_ms, before, after));
    Rules { keyed: settings.compact, times }
}
