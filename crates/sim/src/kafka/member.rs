//! A member of the consumer group: joins, is given partitions, reads them from where the group is, commits, leaves.
//!
//! Whoever leads a generation shares the partitions out and writes generation and leader into every share, so that
//! shares of different generations cannot be mixed unseen.

use std::collections::BTreeMap;

use super::journal::Journal;
use super::link::{self, Ask, Link, With};
use super::reader;
use super::wire::{self, Fields, PutFields, code};
use crate::client::Fault;

/// The group of all members.
pub(super) const GROUP: &str = "group";
const SESSION_MS: i32 = 6_000;
const REBALANCE_MS: i32 = 2_000;

/// How far a member is in its generation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Out,
    Joining,
    Syncing,
    /// It asks where the group was.
    Placing,
    Reading,
}

/// A member.
#[derive(Debug, Default)]
pub(super) struct Member {
    stage: Stage,
    id: String,
    generation: i32,
    leader: String,
    /// All members, where it leads.
    roster: Vec<String>,
    /// Its partitions with the next offset of each, once that is known.
    places: BTreeMap<usize, Option<u64>>,
}

impl Member {
    /// Its connection is gone. It comes back as who it was.
    pub fn lost(&mut self) {
        if self.stage != Stage::Reading {
            self.stage = Stage::Out;
        }
    }

    pub fn act(&mut self, link: &mut Link, with: &mut With<'_>) {
        let plan = with.plan;
        match self.stage {
            Stage::Out => self.join(link, with),
            Stage::Joining | Stage::Syncing | Stage::Placing => {}
            Stage::Reading if with.prng.chance(plan.leave, 100) => self.leave(link),
            // As after a change of what it knows: everybody joins anew.
            Stage::Reading if with.prng.chance(plan.leave, 100) => self.join(link, with),
            Stage::Reading => self.read(link, with),
        }
    }

    fn join(&mut self, link: &mut Link, with: &mut With<'_>) {
        self.stage = Stage::Joining;
        self.places.clear();
        let mut body = Vec::new();
        body.text(GROUP);
        body.i32(SESSION_MS);
        body.i32(REBALANCE_MS);
        body.text(&self.id);
        body.null_text();
        body.text("consumer");
        body.i32(1);
        body.text("range");
        body.blob(&subscription(with.journal));
        let newest = with.groups.newest(GROUP);
        link.ask(wire::JOIN_GROUP, Ask::Join { newest }, &body);
    }

    fn leave(&mut self, link: &mut Link) {
        self.stage = Stage::Out;
        let mut body = Vec::new();
        body.text(GROUP);
        body.i32(1);
        body.text(&self.id);
        body.null_text();
        link.ask(wire::LEAVE_GROUP, Ask::Leave, &body);
        self.id.clear();
    }

    fn read(&mut self, link: &mut Link, with: &mut With<'_>) {
        let is_busy = |ask: &Ask| matches!(ask, Ask::Commit { .. } | Ask::Committed { .. });
        let known: Vec<(usize, u64)> =
            self.places.iter().filter_map(|(spot, place)| Some((*spot, (*place)?))).collect();
        let percent = with.prng.below(100);
        if percent < with.plan.commit && !known.is_empty() && !link.awaits(is_busy) {
            let is_probe = with.prng.chance(with.plan.probe, 100);
            let generation = if is_probe { self.generation - 1 } else { self.generation };
            reader::commit((GROUP, generation, &self.id), &known, link, with);
        } else if percent < 60 {
            self.heartbeat(link, with);
        }
        if link.awaits(|ask| matches!(ask, Ask::Fetch(_) | Ask::Offset { .. })) {
            return;
        }
        if let Some((spot, _)) = self.places.iter().find(|(_, place)| place.is_none()) {
            return reader::ask_offset(*spot, link::At::Start, link, with);
        }
        if !known.is_empty() {
            reader::fetch(&known, link, with);
        }
    }

    fn heartbeat(&self, link: &mut Link, with: &mut With<'_>) {
        if link.awaits(|ask| matches!(ask, Ask::Heartbeat { .. })) {
            return;
        }
        let mut body = Vec::new();
        self.put_who(self.generation, &mut body);
        let ask = Ask::Heartbeat { newest: with.groups.newest(GROUP), generation: self.generation };
        link.ask(wire::HEARTBEAT, ask, &body);
    }

    fn put_who(&self, generation: i32, body: &mut Vec<u8>) {
        body.text(GROUP);
        body.i32(generation);
        body.text(&self.id);
        body.null_text();
    }

    pub fn answered(
        &mut self,
        ask: Ask,
        mut fields: Fields<'_>,
        link: &mut Link,
        with: &mut With<'_>,
    ) -> Result<(), Fault> {
        match ask {
            Ask::Join { newest } => self.joined(newest, fields, link, with),
            Ask::Sync => self.synced(fields, link, with),
            Ask::Heartbeat { newest, generation } => {
                fields.i32()?;
                let why = fields.i16()?;
                if why == code::NONE && generation < newest {
                    return Err(("G1", format!("generation {generation} lives on after {newest} had begun")));
                }
                self.told(why, generation)
            }
            Ask::Leave => {
                fields.i32()?;
                refused(fields.i16()?)
            }
            Ask::Fetch(cursors) => {
                for (spot, place, _) in reader::fetched(&cursors, fields, with)? {
                    // It may have another generation by now.
                    if let Some(known) = self.places.get_mut(&spot) {
                        *known = place;
                    }
                }
                Ok(())
            }
            Ask::Offset { spot, at, glance } => {
                let start = reader::offset_found(spot, at, glance, &mut fields, with)?;
                if let (Some(place @ None), Some((start, _))) = (self.places.get_mut(&spot), start) {
                    *place = Some(start);
                }
                Ok(())
            }
            Ask::Commit { group, newest, generation, commits } => {
                let why = reader::committed(group, (newest, generation), &commits, fields, with)?;
                self.told(why, generation)
            }
            Ask::Committed { group, spots, asked } => {
                let offsets = reader::offsets_of(group, &spots, asked, fields, with)?;
                if self.stage != Stage::Placing {
                    return Ok(());
                }
                self.stage = if offsets.is_some() { Stage::Reading } else { Stage::Out };
                for (spot, place) in &mut self.places {
                    *place = offsets.as_ref().and_then(|offsets| offsets.get(spot).copied());
                }
                Ok(())
            }
            other => link::greeting(&other, fields),
        }
    }

    /// What a code says of its membership, if it is about the generation it has.
    fn told(&mut self, why: i16, generation: i32) -> Result<(), Fault> {
        if generation == self.generation && self.stage == Stage::Reading {
            match why {
                code::REBALANCE_IN_PROGRESS => self.stage = Stage::Out,
                code::ILLEGAL_GENERATION | code::UNKNOWN_MEMBER_ID => self.begin_anew(),
                _ => {}
            }
        }
        refused(why)
    }

    fn begin_anew(&mut self) {
        (self.stage, self.generation) = (Stage::Out, -1);
        self.id.clear();
    }

    fn joined(
        &mut self,
        newest: i32,
        mut fields: Fields<'_>,
        link: &mut Link,
        with: &mut With<'_>,
    ) -> Result<(), Fault> {
        fields.i32()?;
        let (why, generation) = (fields.i16()?, fields.i32()?);
        let _protocol = fields.text()?;
        let (leader, id) = (fields.text()?.to_owned(), fields.text()?.to_owned());
        let mut roster = Vec::new();
        fields.list(|fields| {
            roster.push(fields.text()?.to_owned());
            fields.text()?;
            fields.blob().map(drop)
        })?;
        self.stage = Stage::Out;
        match why {
            code::NONE => {}
            code::MEMBER_ID_REQUIRED => {
                self.id = id;
                return Ok(());
            }
            code::UNKNOWN_MEMBER_ID => {
                self.begin_anew();
                return Ok(());
            }
            why => return refused(why),
        }
        let is_new = with.groups.joined(GROUP, generation, &leader, newest)?;
        with.journal.seen.generations += u64::from(is_new);
        (self.stage, self.generation, self.id, self.leader) = (Stage::Syncing, generation, id, leader);
        self.roster = roster;
        if self.leader == self.id && !self.roster.contains(&self.id) {
            return Err(("G1", "who leads a group is not told that it is a member".to_owned()));
        }
        self.sync(link, with);
        Ok(())
    }

    fn sync(&self, link: &mut Link, with: &mut With<'_>) {
        let mut body = Vec::new();
        self.put_who(self.generation, &mut body);
        let leads = self.leader == self.id;
        let members = if leads { self.roster.as_slice() } else { &[] };
        body.i32(members.len() as i32);
        let spots = with.journal.spots();
        for (at, member) in members.iter().enumerate() {
            body.text(member);
            let mut share = Vec::new();
            share.i32(self.generation);
            share.text(&self.leader);
            let of_member = (0..spots).filter(|spot| spot % members.len() == at);
            share.i32(of_member.clone().count() as i32);
            of_member.for_each(|spot| share.i32(spot as i32));
            body.blob(&share);
        }
        link.ask(wire::SYNC_GROUP, Ask::Sync, &body);
    }

    fn synced(&mut self, mut fields: Fields<'_>, link: &mut Link, with: &mut With<'_>) -> Result<(), Fault> {
        fields.i32()?;
        let (why, mut share) = (fields.i16()?, Fields(fields.blob()?));
        self.stage = Stage::Out;
        if matches!(why, code::ILLEGAL_GENERATION | code::UNKNOWN_MEMBER_ID) {
            self.begin_anew();
        }
        if why != code::NONE {
            return refused(why);
        }
        let (generation, leader) = (share.i32()?, share.text()?);
        if generation != self.generation || leader != self.leader {
            let what = format!("a share of generation {generation} by {leader} came in {}", self.generation);
            return Err(("G1", what));
        }
        let mut spots = Vec::new();
        share.list(|share| {
            spots.push(share.i32()? as usize);
            Ok(())
        })?;
        for spot in &spots {
            with.groups.owns(GROUP, generation, *spot, &self.id)?;
            with.journal.seen.assigned += 1;
        }
        self.places = spots.iter().map(|spot| (*spot, None)).collect();
        self.stage = Stage::Placing;
        reader::ask_committed(GROUP, &spots, link, with);
        Ok(())
    }
}

/// Whether a refusal is one that members know.
fn refused(why: i16) -> Result<(), Fault> {
    match why {
        code::NONE
        | code::COORDINATOR_NOT_AVAILABLE
        | code::COORDINATOR_LOAD_IN_PROGRESS
        | code::ILLEGAL_GENERATION
        | code::UNKNOWN_MEMBER_ID
        | code::REBALANCE_IN_PROGRESS => Ok(()),
        why => Err(("G5", format!("a member is refused with {why}"))),
    }
}

/// The topics a member wants, as consumers write them.
fn subscription(journal: &Journal) -> Vec<u8> {
    let mut out = Vec::new();
    out.i16(0);
    out.i32(journal.topics.len() as i32);
    journal.topics.iter().for_each(|topic| out.text(&topic.name));
    out.blob(&[]);
    out
}
