//! Fetches: whole ones, and those of a session, which name only what changed and are told only what changed.
//!
//! In: places to read from. Out: requests; where readers go on. What a session does not tell of is as it was told last:
//! that is checked like what is told.

use std::collections::BTreeMap;

use super::batch;
use super::journal::{Found, Glance};
use super::link::{self, Ask, Link, With};
use super::wire::{self, Fields, PutFields, code};
use crate::client::Fault;

/// The fetch session of a reader, if it has begun one.
#[derive(Debug, Default)]
pub(super) struct Session {
    /// 0: there is none.
    id: i32,
    /// The number of its next request.
    epoch: i32,
    /// The places of all its partitions, as the node knows them.
    places: BTreeMap<usize, u64>,
    /// Start and end of each, as the node told them last.
    told: BTreeMap<usize, (u64, u64)>,
}

/// How a fetch stands to the session of its reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// It has none, or ends it.
    Whole,
    Begins,
    Continues,
    /// It has a number that is not its turn.
    Lost,
}

/// Where a reader of a partition goes on, unless its place is gone; and how many records came.
pub(super) type Went = (usize, Option<u64>, Option<usize>);

/// Partitions with the places that are read from.
type Places<'a> = &'a [(usize, u64)];

/// Partitions with the places that are read from, and what was known of each then.
pub(super) type Cursors = Vec<(usize, u64, Glance)>;

/// Reads from these places on, without a session.
pub(super) fn fetch(places: &[(usize, u64)], link: &mut Link, with: &mut With<'_>) {
    ask(Form::Whole, (0, -1), (places, places, &[]), link, with);
}

/// Reads from these places on, and from nowhere else, in a session.
pub(super) fn fetch_on(session: &mut Session, places: &[(usize, u64)], link: &mut Link, with: &mut With<'_>) {
    if session.id == 0 || with.prng.chance(1, 40) {
        let is_begun = session.id == 0;
        let form = if is_begun { Form::Begins } else { Form::Whole };
        // Who ends it says so by its number.
        ask(form, (session.id, if is_begun { 0 } else { -1 }), (places, places, &[]), link, with);
        *session = Session { places: places.iter().copied().collect(), ..Session::default() };
        return;
    }
    if with.prng.chance(with.plan.probe, 100) {
        let number = (session.id, session.epoch + 1);
        return ask(Form::Lost, number, (places, places, &[]), link, with);
    }
    let changed = |(spot, place): &&(usize, u64)| session.places.get(spot) != Some(place);
    let changed: Vec<(usize, u64)> = places.iter().filter(changed).copied().collect();
    let new: BTreeMap<usize, u64> = places.iter().copied().collect();
    let forgotten: Vec<usize> =
        session.places.keys().filter(|spot| !new.contains_key(spot)).copied().collect();
    session.told.retain(|spot, _| new.contains_key(spot));
    session.places = new;
    ask(Form::Continues, (session.id, session.epoch), (places, &changed, &forgotten), link, with);
}

/// Asks for all of these places; named are only some, and some are to be forgotten.
fn ask(
    form: Form,
    (session, epoch): (i32, i32),
    (all, named, forgotten): (Places<'_>, Places<'_>, &[usize]),
    link: &mut Link,
    with: &mut With<'_>,
) {
    let cursors: Cursors =
        all.iter().map(|(spot, place)| (*spot, *place, with.journal.glance(*spot))).collect();
    let (wait_ms, most) = (*with.prng.pick(&[0, 5, 100]), *with.prng.pick(&[1, 5_000, 1 << 20]));
    let mut body = Vec::new();
    body.i32(-1);
    body.i32(wait_ms);
    body.i32(1);
    body.i32(most);
    // There are no transactions: both ways of reading get the same.
    body.i8(i8::from(with.prng.chance(1, 2)));
    body.i32(session);
    body.i32(epoch);
    link::put_spots(&mut body, with.journal, named, |out, place| {
        out.i32(-1);
        out.i64(place.cast_signed());
        out.i64(-1);
        out.i32(most);
    });
    let forgotten: Vec<(usize, ())> = forgotten.iter().map(|spot| (*spot, ())).collect();
    link::put_spots(&mut body, with.journal, &forgotten, |_, ()| {});
    body.text("");
    link.ask(wire::FETCH, Ask::Fetch(form, cursors), &body);
}

/// What an answer says of one partition.
enum Told {
    /// Its start and end, and how the reader goes on.
    Bounds((u64, u64), Went),
    Refused(Went),
}

/// What came of a fetch.
pub(super) fn fetched(
    cursors: &Cursors,
    fields: Fields<'_>,
    with: &mut With<'_>,
) -> Result<Vec<Went>, Fault> {
    fetched_on(&mut Session::default(), Form::Whole, cursors, fields, with)
}

/// What came of a fetch in a session.
pub(super) fn fetched_on(
    session: &mut Session,
    form: Form,
    cursors: &Cursors,
    mut fields: Fields<'_>,
    with: &mut With<'_>,
) -> Result<Vec<Went>, Fault> {
    fields.i32()?;
    let (whole, id) = (fields.i16()?, fields.i32()?);
    match (form, whole) {
        (Form::Lost, code::INVALID_FETCH_SESSION_EPOCH) => {
            with.journal.seen.probes += 1;
            return Ok(Vec::new());
        }
        (Form::Whole, code::NONE) if id == 0 => {}
        (Form::Begins, code::NONE) if id != 0 => (session.id, session.epoch) = (id, 1),
        (Form::Continues, code::NONE) if id == session.id => session.epoch += 1,
        _ => {
            return Err((
                "L10",
                format!("a fetch that is {form:?} is answered with {whole} in session {id}"),
            ));
        }
    }
    let mut went = Vec::new();
    link::read_spots(&mut fields, |topic, partition, fields| {
        let spot = with.journal.spot_of(topic, partition)?;
        match partition_of(spot, cursors, fields, with)? {
            Told::Bounds(bounds, one) => {
                session.told.insert(spot, bounds);
                went.push(one);
            }
            Told::Refused(one) => {
                session.told.remove(&spot);
                went.push(one);
            }
        }
        Ok(())
    })?;
    if form == Form::Continues {
        with.journal.seen.incremental += 1;
        untold(session, cursors, &mut went, with)?;
    }
    if went.len() == cursors.len() { Ok(went) } else { Err(("L2", "a fetch is answered in part".to_owned())) }
}

/// Who is not told of is as it was.
fn untold(
    session: &Session,
    cursors: &Cursors,
    went: &mut Vec<Went>,
    with: &mut With<'_>,
) -> Result<(), Fault> {
    // Where one is refused nobody waits until the others are read.
    let nothing_came = went.iter().all(|(_, _, came)| *came == Some(0));
    let named: Vec<usize> = went.iter().map(|(spot, ..)| *spot).collect();
    for (spot, place, glance) in cursors.iter().filter(|(spot, ..)| !named.contains(spot)) {
        let Some((start, end)) = session.told.get(spot).copied() else {
            let (topic, partition) = with.journal.place(*spot);
            return Err(("L2", format!("a session never tells of {topic}-{partition}")));
        };
        let found = Found { start, end, stable: end, batches: Vec::new(), is_alone: nothing_came };
        let (next, _) = with.journal.fetched(*spot, *place, *glance, &found)?;
        with.journal.seen.untold += 1;
        // What is known to be empty is not skipped: the place stays.
        went.push((*spot, Some(next.min(*place)), None));
    }
    Ok(())
}

fn partition_of(
    spot: usize,
    cursors: &Cursors,
    fields: &mut Fields<'_>,
    with: &mut With<'_>,
) -> Result<Told, Fault> {
    let (why, end, stable, start) = (fields.i16()?, fields.i64()?, fields.i64()?, fields.i64()?);
    fields.list(|_| Err(("K4", "an aborted transaction is told of".to_owned())))?;
    fields.i32()?;
    let records = fields.blob()?;
    let cursor = cursors.iter().find(|(of, ..)| *of == spot);
    let (_, place, glance) = *cursor.ok_or_else(|| ("L2", format!("nobody read partition {spot}")))?;
    if why == code::KAFKA_STORAGE_ERROR && with.is_damaged {
        with.journal.seen.put_off += 1;
        Ok(Told::Refused((spot, Some(place), None)))
    } else if why == code::UNKNOWN_TOPIC_OR_PARTITION {
        with.journal.unknown(spot, glance.stamp)?;
        Ok(Told::Refused((spot, Some(place), None)))
    } else if why == code::NONE {
        let (batches, is_alone) = (batch::read_all(records)?, cursors.len() == 1);
        let [start, end, stable] = [start, end, stable].map(i64::cast_unsigned);
        let found = Found { start, end, stable, batches, is_alone };
        let (next, came) = with.journal.fetched(spot, place, glance, &found)?;
        Ok(Told::Bounds((start, end), (spot, Some(next), Some(came))))
    } else {
        with.journal.fetch_refused(spot, place, why)?;
        Ok(Told::Refused((spot, None, None)))
    }
}
