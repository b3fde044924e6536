//! Fetch: cursors out of a request, whole or as a session's change; batches into a response from where they are.
//!
//! In: the request's fields, then what the cursors found. Out: one question, then the response. Never: copies large
//! batches, or tells a session what it knows.
//!
//! ```text
//! request   [to 14: i32 replica]  i32 wait  i32 min bytes  i32 max bytes  i8 isolation  [from 7: i32 session  i32 epoch]
//!           list of topics  [from 7: list of forgotten topics]  [from 11: string rack]
//!   topic   string name, or from 13 on 16 bytes id;  list of
//!           i32 partition  [from 9: i32 leader epoch]  i64 offset  [from 12: i32 epoch fetched last]
//!           [from 5: i64 log start]  i32 max bytes
//! ```

use base::SendBuffer;
use model::LogRequest;
use model::topic::{Cursor, Fetch, Fetched, LogRefusal, PartitionRef};

use super::fetch_session::{Claim, FetchSession, Form, Key, Wanted};
use super::pending::{Kind, Pending};
use super::reply::Topic;
use super::{Due, Session};
use crate::map::{self, Code};
use crate::wire::records::{self, Part};
use crate::wire::{Api, Decoder, Header, Malformed};

/// Bytes of one response, whatever the client asks: what the protocol's own consumers ask for.
const RESPONSE_BYTES_MAX: u32 = 52_428_800;

/// What the response must name.
#[derive(Debug)]
pub(super) struct Plan {
    asked: Vec<Key>,
    /// The session the client is told of; 0 for none.
    session: i32,
    /// Whether only what changed is told.
    partial: bool,
    code: Code,
}

/// A request as read.
struct Read {
    wait_ms: i32,
    min_bytes: i32,
    max_bytes: i32,
    claim: Claim,
    wanted: Vec<(Key, Wanted)>,
    forgotten: Vec<Key>,
}

impl Session {
    /// Takes a request in, asks what its cursors find and puts its response in line.
    pub(super) fn fetch(
        &mut self,
        api: &'static Api,
        header: Header<'_>,
        fields: Decoder<'_>,
        bytes: usize,
        out: &mut SendBuffer,
    ) -> Result<(), Malformed> {
        let version = header.version;
        let Read { wait_ms, min_bytes, max_bytes, claim, wanted, forgotten } = read(version, fields)?;
        let (plan, wanted) = self.plan(version >= 13, claim, wanted, forgotten);
        let questions = usize::from(!wanted.is_empty() || plan.code == map::NONE && plan.session != 0);
        let token = self.queue.tokens(questions);
        if questions > 0 {
            let cursors = plan.asked.iter().zip(wanted).map(|(key, wanted)| cursor(key, wanted)).collect();
            let fetch = Fetch {
                max_wait_ms: unsigned(wait_ms),
                min_bytes: unsigned(min_bytes),
                max_bytes: unsigned(max_bytes).min(RESPONSE_BYTES_MAX),
                cursors,
            };
            self.outbox.push_back(Due::Log(token, LogRequest::Fetch(fetch)));
        }
        let mut pending = Pending::new(api, version, header.correlation, Kind::Fetch(plan), token, questions);
        pending.bytes = bytes;
        self.queue.push(pending);
        self.settle(out);
        Ok(())
    }

    /// Brings the session, if there is to be one, up to date and says what is to be read.
    fn plan(
        &mut self,
        by_id: bool,
        claim: Claim,
        wanted: Vec<(Key, Wanted)>,
        forgotten: Vec<Key>,
    ) -> (Plan, Vec<Wanted>) {
        let failed = |code| (Plan { asked: Vec::new(), session: 0, partial: false, code }, Vec::new());
        let form = claim.form();
        if form == Form::Continue {
            let session = match self.fetching.continued(claim, by_id) {
                Ok(session) => session,
                Err(code) => return failed(code),
            };
            session.update(wanted, forgotten);
            if session.len() > crate::wire::decoder::ITEMS_MAX {
                self.fetching.end(claim.id);
                return failed(map::FETCH_SESSION_ID_NOT_FOUND);
            }
            let (asked, wanted) = session.wanted().unzip();
            let plan = Plan { asked, session: session.id, partial: true, code: map::NONE };
            self.fetching.bound();
            return (plan, wanted);
        }
        // Both a new session and none end the one that is named.
        self.fetching.end(claim.id);
        let mut session = 0;
        if form == Form::Begin && !wanted.is_empty() {
            session = self.draw_session_id();
            self.fetching.add(FetchSession::begin(session, by_id, wanted.clone()));
        }
        let (asked, wanted) = wanted.into_iter().unzip();
        (Plan { asked, session, partial: false, code: map::NONE }, wanted)
    }

    fn draw_session_id(&mut self) -> i32 {
        loop {
            let id = 1 + self.prng.below(i32::MAX as u64 - 1) as i32;
            if self.fetching.find(id).is_none() {
                return id;
            }
        }
    }

    /// Writes the response.
    pub(super) fn fetched(
        &mut self,
        pending: Pending,
        found: &[Result<Fetched, LogRefusal>],
        out: &mut SendBuffer,
    ) {
        let Kind::Fetch(plan) = &pending.kind else { super::reply::mismatch() };
        let mut parts = Vec::with_capacity(found.len());
        for (key, found) in plan.asked.iter().zip(found) {
            let part = Part::new(key.1, found);
            if self.tells(plan, key, found, part.code) {
                parts.push((&key.0, part));
            }
        }
        if let Some(session) = self.fetching.find(plan.session) {
            let served = plan.asked.iter().zip(found).filter(|(_, found)| has_batches(found));
            session.put_behind(served.map(|(key, _)| key));
        }
        let head = records::Head {
            correlation: pending.correlation,
            version: pending.version,
            code: plan.code,
            session: plan.session,
        };
        records::put_fetched(&head, &parts, |topic: &&Topic, fields| topic.put(fields), out);
    }

    /// Whether the response names the partition.
    fn tells(&mut self, plan: &Plan, key: &Key, found: &Result<Fetched, LogRefusal>, code: Code) -> bool {
        let Some(session) = self.fetching.find(plan.session) else { return true };
        let bounds = found.as_ref().ok().filter(|_| code == map::NONE);
        let bounds = bounds.map(|found| (found.start, found.end));
        session.is_news(key, bounds, has_batches(found)) || !plan.partial
    }
}

fn has_batches(found: &Result<Fetched, LogRefusal>) -> bool {
    found.as_ref().is_ok_and(|found| !found.batches.is_empty())
}

fn unsigned(number: i32) -> u32 {
    u32::try_from(number).unwrap_or(0)
}

fn cursor(key: &Key, wanted: Wanted) -> Cursor {
    Cursor {
        at: PartitionRef { topic: key.0.reference(), partition: key.1.cast_unsigned() },
        // An offset below 0 is outside of every log, as is this one.
        offset: u64::try_from(wanted.offset).unwrap_or(u64::MAX),
        max_bytes: unsigned(wanted.max_bytes),
        epoch: u32::try_from(wanted.epoch).ok(),
    }
}

fn read(version: i16, mut fields: Decoder<'_>) -> Result<Read, Malformed> {
    if version <= 14 {
        fields.i32()?;
    }
    let (wait_ms, min_bytes, max_bytes) = (fields.i32()?, fields.i32()?, fields.i32()?);
    fields.i8()?;
    let claim = match version >= 7 {
        true => Claim { id: fields.i32()?, epoch: fields.i32()? },
        false => Claim { id: 0, epoch: -1 },
    };
    let wanted = topics(version, &mut fields, |fields| wanted_of(version, fields))?;
    let mut forgotten = Vec::new();
    if version >= 7 {
        forgotten = topics(version, &mut fields, |fields| Ok((fields.i32()?, ())))?;
    }
    if version >= 11 {
        fields.string()?;
    }
    fields.tags()?;
    let forgotten = forgotten.into_iter().map(|(key, ())| key).collect();
    Ok(Read { wait_ms, min_bytes, max_bytes, claim, wanted, forgotten })
}

/// Reads partitions by topic, each with something.
fn topics<T>(
    version: i16,
    fields: &mut Decoder<'_>,
    mut item: impl FnMut(&mut Decoder<'_>) -> Result<(i32, T), Malformed>,
) -> Result<Vec<(Key, T)>, Malformed> {
    let mut all = Vec::new();
    fields.structs(|fields| {
        let topic = match version >= 13 {
            true => Topic::Id(fields.uuid()?),
            false => Topic::Name(fields.string()?.into()),
        };
        fields.list(|fields| {
            let (partition, value) = item(fields)?;
            all.push(((topic.clone(), partition), value));
            Ok(())
        })
    })?;
    Ok(all)
}

fn wanted_of(version: i16, fields: &mut Decoder<'_>) -> Result<(i32, Wanted), Malformed> {
    let partition = fields.i32()?;
    let epoch = if version >= 9 { fields.i32()? } else { -1 };
    let offset = fields.i64()?;
    if version >= 12 {
        fields.i32()?;
    }
    if version >= 5 {
        fields.i64()?;
    }
    let max_bytes = fields.i32()?;
    fields.tags()?;
    Ok((partition, Wanted { offset, max_bytes, epoch }))
}
