//! A reader without a group: it reads every partition from its start on and keeps its places over all restarts, asks
//! where offsets are, deletes records, and commits its places by hand.

use std::collections::{BTreeMap, BTreeSet};

use super::fetching::{self, Session};
use super::journal::{Glance, Journal};
use super::link::{self, Ask, At, Link, Name, With};
use super::plan::BEHIND_MS;
use super::wire::{self, Fields, PutFields, code};
use crate::client::Fault;

/// The group of readers that have none.
pub(super) const SOLO: &str = "solo";
/// The groups whose offsets are asked for in the end.
pub(super) const GROUPS: [&str; 2] = [SOLO, super::member::GROUP];

/// A reader.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// The next offset of each partition, once its start is known.
    places: BTreeMap<usize, u64>,
    /// Whether it is alone and reads everything once, to its end.
    is_auditor: bool,
    read: BTreeSet<usize>,
    asked_offsets: bool,
    /// Where it reads in sessions.
    session: Option<Session>,
}

impl Reader {
    /// One that reads in sessions, or without them.
    pub fn new(in_sessions: bool) -> Reader {
        Reader { session: in_sessions.then(Session::default), ..Reader::default() }
    }

    /// One that reads everything once.
    pub fn auditor() -> Reader {
        Reader { is_auditor: true, ..Reader::default() }
    }

    /// Whether an auditor has read everything.
    pub fn has_read(&self, spots: usize) -> bool {
        self.read.len() == spots && self.asked_offsets
    }

    /// Its connection is gone.
    pub fn lost(&mut self) {
        self.asked_offsets = false;
        self.session = self.session.take().map(|_| Session::default());
    }

    pub fn act(&mut self, link: &mut Link, with: &mut With<'_>) {
        if self.is_auditor {
            return self.audit(link, with);
        }
        let plan = with.plan;
        let spot = with.prng.below(with.journal.spots() as u64) as usize;
        match with.prng.below(100) {
            percent if percent < plan.delete_records / 2 => delete(spot, link, with),
            percent if percent < plan.look_up => {
                let behind_ms = if with.journal.is_stamped(spot) { 0 } else { BEHIND_MS };
                let time_ms = with.wall_ms - behind_ms - with.prng.below(2000) as i64;
                let time = At::Time(time_ms);
                let at = *with.prng.pick(&[At::Start, At::End, At::Latest, time, time, At::Time(0)]);
                ask_offset(spot, at, link, with);
            }
            percent if percent < plan.commit => self.commit(spot, link, with),
            _ => {}
        }
        if !link.awaits(|ask| matches!(ask, Ask::Fetch(..) | Ask::Offset { at: At::Start, .. })) {
            self.fetch(link, with);
        }
    }

    fn fetch(&mut self, link: &mut Link, with: &mut With<'_>) {
        let all: Vec<usize> = (0..with.journal.spots()).collect();
        let wanted: Vec<usize> = match with.prng.chance(1, 2) {
            true => vec![*with.prng.pick(&all)],
            false => all,
        };
        if let Some(spot) = wanted.iter().find(|spot| !self.places.contains_key(*spot)) {
            return ask_offset(*spot, At::Start, link, with);
        }
        let places: Vec<(usize, u64)> = wanted.iter().map(|spot| (*spot, self.places[spot])).collect();
        match &mut self.session {
            Some(session) => fetching::fetch_on(session, &places, link, with),
            None => fetching::fetch(&places, link, with),
        }
    }

    fn audit(&mut self, link: &mut Link, with: &mut With<'_>) {
        if link.under_way() > 0 {
            return;
        }
        if !std::mem::replace(&mut self.asked_offsets, true) {
            let spots: Vec<usize> = (0..with.journal.spots()).collect();
            GROUPS.iter().for_each(|group| ask_committed(group, &spots, link, with));
        }
        let Some(spot) = (0..with.journal.spots()).find(|spot| !self.read.contains(spot)) else { return };
        match self.places.get(&spot) {
            None => ask_offset(spot, At::Start, link, with),
            Some(place) => fetching::fetch(&[(spot, *place)], link, with),
        }
    }

    fn commit(&self, spot: usize, link: &mut Link, with: &mut With<'_>) {
        if link.awaits(|ask| matches!(ask, Ask::Commit { .. } | Ask::Committed { .. })) {
            return;
        }
        match self.places.get(&spot) {
            Some(place) if with.prng.chance(2, 3) => {
                let name = with.name(SOLO, -1, None);
                commit((SOLO, name, ""), &[(spot, *place)], link, with);
            }
            _ => ask_committed(SOLO, &[spot], link, with),
        }
    }

    pub fn answered(&mut self, ask: Ask, mut fields: Fields<'_>, with: &mut With<'_>) -> Result<(), Fault> {
        match ask {
            Ask::Fetch(form, cursors) => {
                let mut none = Session::default();
                let session = self.session.as_mut().unwrap_or(&mut none);
                for (spot, place, came) in fetching::fetched_on(session, form, &cursors, fields, with)? {
                    let before = match place {
                        None => self.places.remove(&spot),
                        Some(place) => self.places.insert(spot, place),
                    };
                    // A batch of which all records are gone brings it on and nothing else.
                    if self.is_auditor && came == Some(0) && before == place {
                        self.read.insert(spot);
                    }
                }
                Ok(())
            }
            Ask::Offset { spot, at, glance } => {
                let found = offset_found(spot, at, glance, &mut fields, with)?;
                if let (At::Start, Some((start, _))) = (at, found) {
                    self.places.entry(spot).or_insert(start);
                }
                Ok(())
            }
            Ask::Delete { spot, below } => deleted(spot, below, &mut fields, with),
            Ask::Commit { group, name, commits } => committed(group, name, &commits, fields, with).map(drop),
            Ask::Committed { group, spots, asked } => {
                offsets_of(group, &spots, asked, fields, with).map(drop)
            }
            other => link::greeting(&other, fields),
        }
    }
}

/// Asks where an offset is.
pub(super) fn ask_offset(spot: usize, at: At, link: &mut Link, with: &mut With<'_>) {
    let glance = with.journal.glance(spot);
    let mut body = Vec::new();
    body.i32(-1);
    body.i8(0);
    let wanted = match at {
        At::Start => -2,
        At::End => -1,
        At::Time(time_ms) => time_ms,
        At::Latest => {
            put_latest(spot, with.journal, &mut body);
            return link.ask(wire::LIST_LATEST, Ask::Offset { spot, at, glance }, &body);
        }
    };
    link::put_spots(&mut body, with.journal, &[(spot, ())], |out, ()| {
        out.i32(-1);
        out.i64(wanted);
    });
    link.ask(wire::LIST_OFFSETS, Ask::Offset { spot, at, glance }, &body);
}

/// Which partition's record with the highest time is asked for, in the flexible form.
fn put_latest(spot: usize, journal: &Journal, body: &mut Vec<u8>) {
    let (topic, partition) = journal.place(spot);
    body.short_length(1);
    body.short_text(topic);
    body.short_length(1);
    body.i32(partition);
    body.i32(-1);
    body.i64(-3);
    (0..3).for_each(|_| body.i8(0));
}

/// What is said of the only partition that was asked about, in the flexible form: error, time and offset.
fn read_latest(fields: &mut Fields<'_>) -> Result<(i16, i64, i64), Fault> {
    fields.take(1 + 4)?;
    fields.short_length()?;
    fields.short_text()?;
    fields.short_length()?;
    fields.i32()?;
    Ok((fields.i16()?, fields.i64()?, fields.i64()?))
}

/// Where an offset was found, and of what time.
pub(super) fn offset_found(
    spot: usize,
    at: At,
    glance: Glance,
    fields: &mut Fields<'_>,
    with: &mut With<'_>,
) -> Result<Option<(u64, i64)>, Fault> {
    let mut answer = (code::NONE, -1, -1);
    if at == At::Latest {
        answer = read_latest(fields)?;
    } else {
        fields.i32()?;
        link::read_spots(fields, |_, _, fields| {
            answer = (fields.i16()?, fields.i64()?, fields.i64()?);
            fields.i32().map(drop)
        })?;
    }
    let (why, time_ms, offset) = answer;
    match why {
        code::NONE => {}
        code::KAFKA_STORAGE_ERROR if with.is_damaged => return Ok(None),
        code::UNKNOWN_TOPIC_OR_PARTITION => return with.journal.unknown(spot, glance.stamp).map(|()| None),
        why => return Err(("K15", format!("the offset at {at:?} is refused with {why}"))),
    }
    let found = u64::try_from(offset).ok().map(|offset| (offset, time_ms));
    let known = found.map(|(offset, _)| offset);
    match at {
        At::Start => with.journal.bounds(spot, glance, known, None),
        At::End => with.journal.bounds(spot, glance, None, known),
        At::Time(wanted) => with.journal.looked_up(spot, wanted, glance, found),
        At::Latest => with.journal.is_latest(spot, glance, found),
    }?;
    Ok(found)
}

/// Deletes some of what is at the front.
fn delete(spot: usize, link: &mut Link, with: &mut With<'_>) {
    let glance = with.journal.glance(spot);
    if glance.end <= glance.start {
        return;
    }
    let below = glance.start + with.prng.below((glance.end - glance.start + 1).min(30));
    with.journal.delete(spot, below);
    let mut body = Vec::new();
    link::put_spots(&mut body, with.journal, &[(spot, ())], |out, ()| out.i64(below.cast_signed()));
    body.i32(30_000);
    link.ask(wire::DELETE_RECORDS, Ask::Delete { spot, below }, &body);
}

fn deleted(spot: usize, below: u64, fields: &mut Fields<'_>, with: &mut With<'_>) -> Result<(), Fault> {
    fields.i32()?;
    link::read_spots(fields, |_, _, fields| {
        let (start, why) = (fields.i64()?, fields.i16()?);
        if why == code::UNKNOWN_TOPIC_OR_PARTITION {
            return with.journal.unknown(spot, 0);
        }
        if why == code::REQUEST_TIMED_OUT || why == code::KAFKA_STORAGE_ERROR {
            return Ok(());
        }
        if why != code::NONE || start.cast_unsigned() < below {
            return Err(("K14", format!("deleting below {below} led to {start}, error {why}")));
        }
        with.journal.seen.deleted += 1;
        let glance = Glance { stamp: 0, start: below, end: 0 };
        with.journal.bounds(spot, glance, Some(start.cast_unsigned()), None)
    })
}

/// Commits places in the name of a member of a generation; -1 and nobody for a reader without a group.
pub(super) fn commit(
    (group, name, member): (&'static str, Name, &str),
    places: &[(usize, u64)],
    link: &mut Link,
    with: &mut With<'_>,
) {
    let now = with.journal.tick();
    let number = |(spot, place): &(usize, u64)| (*spot, with.groups.commit(group, *spot, *place, now));
    let commits: Vec<(usize, usize)> = places.iter().map(number).collect();
    let mut body = Vec::new();
    body.text(group);
    body.i32(name.generation);
    body.text(member);
    link::put_instance(&mut body, name.instance);
    link::put_spots(&mut body, with.journal, places, |out, place| {
        out.i64(place.cast_signed());
        out.i32(-1);
        out.text(&format!("at {place}"));
    });
    link.ask(wire::OFFSET_COMMIT, Ask::Commit { group, name, commits }, &body);
}

/// What came of a commit: the code of all of it.
pub(super) fn committed(
    group: &'static str,
    name: Name,
    commits: &[(usize, usize)],
    mut fields: Fields<'_>,
    with: &mut With<'_>,
) -> Result<i16, Fault> {
    fields.i32()?;
    let mut all = code::NONE;
    link::read_spots(&mut fields, |topic, partition, fields| {
        let (why, spot, now) = (fields.i16()?, with.journal.spot_of(topic, partition)?, with.journal.tick());
        all = why;
        let number = commits.iter().find(|(of, _)| *of == spot).map_or(usize::MAX, |(_, number)| *number);
        match why {
            code::NONE => {
                with.groups.may(group, name, "commits")?;
                with.journal.seen.commits += 1;
                with.groups.commit_answered(group, spot, number, true, now);
            }
            code::ILLEGAL_GENERATION
            | code::UNKNOWN_MEMBER_ID
            | code::REBALANCE_IN_PROGRESS
            | code::FENCED_INSTANCE_ID => {
                with.journal.seen.commits_refused += 1;
                with.groups.commit_answered(group, spot, number, false, now);
            }
            code::COORDINATOR_NOT_AVAILABLE | code::COORDINATOR_LOAD_IN_PROGRESS => {}
            why => return Err(("G2", format!("a commit of '{group}' is refused with {why}"))),
        }
        Ok(())
    })?;
    Ok(all)
}

/// Asks for committed offsets.
pub(super) fn ask_committed(group: &'static str, spots: &[usize], link: &mut Link, with: &mut With<'_>) {
    let mut body = Vec::new();
    body.text(group);
    let wanted: Vec<(usize, ())> = spots.iter().map(|spot| (*spot, ())).collect();
    link::put_spots(&mut body, with.journal, &wanted, |_, ()| {});
    let asked = with.journal.tick();
    link.ask(wire::OFFSET_FETCH, Ask::Committed { group, spots: spots.to_vec(), asked }, &body);
}

/// The committed offsets of these partitions, as far as there are any; `None` while the coordinator is loading.
pub(super) fn offsets_of(
    group: &'static str,
    spots: &[usize],
    asked: u64,
    mut fields: Fields<'_>,
    with: &mut With<'_>,
) -> Result<Option<BTreeMap<usize, u64>>, Fault> {
    fields.i32()?;
    let mut found = BTreeMap::new();
    link::read_spots(&mut fields, |topic, partition, fields| {
        let (offset, _, text, why) = (fields.i64()?, fields.i32()?, fields.text()?, fields.i16()?);
        let spot = with.journal.spot_of(topic, partition)?;
        if let Ok(offset) = u64::try_from(offset) {
            if text != format!("at {offset}") {
                return Err(("G2", format!("'{text}' was committed with {offset}")));
            }
            found.insert(spot, offset);
        }
        if why == code::NONE {
            Ok(())
        } else {
            Err(("G4", format!("a committed offset is refused with {why}")))
        }
    })?;
    match fields.i16()? {
        code::NONE => {}
        code::COORDINATOR_NOT_AVAILABLE | code::COORDINATOR_LOAD_IN_PROGRESS => return Ok(None),
        why => return Err(("G4", format!("the offsets of '{group}' are refused with {why}"))),
    }
    for spot in spots {
        with.groups.committed(group, *spot, found.get(spot).copied(), asked)?;
        with.journal.seen.offsets_fetched += 1;
    }
    Ok(Some(found))
}
