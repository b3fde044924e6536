//! A member of the consumer group: joins, is given partitions, reads them from where the group is, commits, leaves.
//! A static one may begin anew under its name while its former self still thinks that it is there.
//!
//! Whoever leads a generation shares the partitions out and writes generation, leader and how many they are into every
//! share, so that shares of different generations cannot be mixed unseen. Checked here is G5: who joins is answered in
//! time, and who begins anew keeps its share.

use std::collections::BTreeMap;

use super::fetching;
use super::groups::person;
use super::journal::Journal;
use super::link::{self, Ask, Instance, Link, With};
use super::reader;
use super::wire::{self, Fields, PutFields, code};
use crate::client::Fault;

/// The group of all members.
pub(super) const GROUP: &str = "group";
const REBALANCE_MS: i32 = 2_000;
/// Microseconds within which a join or a share is answered: the others have as long as they ask for, or as the first
/// generation waits; the rest is for the ways of questions and answers, on which much may come to pass at once.
const ANSWER_US: u64 = REBALANCE_MS as u64 * 1000 + 8_000_000;

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
    /// It was told that it has begun anew as somebody else.
    Gone,
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
    /// The node has said so since the member came back.
    is_sure: bool,
    /// How many members share the partitions, and how many those are.
    sharers: usize,
    shared: usize,
    instance: Option<Instance>,
    /// Its static member has begun anew without it.
    is_former: bool,
    /// It asked to be let in and lost its connection: the node may let it in later than it comes back.
    may_come_twice: bool,
    /// Generation and share of its former self, which it must get again.
    keeps: Option<(i32, Vec<usize>)>,
    /// Its partitions with the next offset of each, once that is known.
    places: BTreeMap<usize, Option<u64>>,
}

impl Member {
    /// A member; static under this number.
    pub fn new(number: Option<u32>) -> Member {
        Member { instance: number.map(|number| (number, 0)), ..Member::default() }
    }

    /// The node has died, and its groups with it.
    pub fn crashed(&mut self) {
        self.keeps = None;
        self.is_sure = false;
    }

    /// Its connection is gone. It comes back as who it was.
    pub fn lost(&mut self) {
        self.is_sure = false;
        if self.is_former {
            self.stage = Stage::Gone;
        } else if self.stage != Stage::Reading {
            self.may_come_twice |= self.stage == Stage::Joining && self.id.is_empty();
            self.stage = Stage::Out;
        }
    }

    /// Whether it is of no more use.
    pub fn is_gone(&self) -> bool {
        self.stage == Stage::Gone
    }

    /// Whether it is there, or is to be.
    pub fn is_alive(&self) -> bool {
        !self.is_former && !self.is_gone()
    }

    /// Whether it is a static member that can begin anew.
    pub fn may_begin_anew(&self) -> bool {
        self.stage == Stage::Reading && self.instance.is_some() && !self.is_former
    }

    /// The static member begins anew; `keeps`: it must get what it has now.
    pub fn begin_as_another(&mut self, keeps: bool) -> Option<Member> {
        let (number, times) = self.instance?;
        self.is_former = true;
        let keeps = keeps.then(|| (self.generation, self.places.keys().copied().collect()));
        Some(Member { instance: Some((number, times + 1)), keeps, ..Member::default() })
    }

    /// Its generation, how many members that has, and its partitions, once it has them.
    pub fn share(&self) -> Option<(i32, usize, impl Iterator<Item = usize>)> {
        (self.stage == Stage::Reading && self.is_sure)
            .then(|| (self.generation, self.sharers, self.places.keys().copied()))
    }

    pub fn act(&mut self, link: &mut Link, with: &mut With<'_>) {
        let plan = with.plan;
        match self.stage {
            Stage::Out => self.join(link, with),
            Stage::Joining | Stage::Syncing | Stage::Placing | Stage::Gone => {}
            Stage::Reading if !self.is_former && with.prng.chance(plan.leave, 100) => self.leave(link),
            // As after a change of what it knows: everybody joins anew.
            Stage::Reading if !self.is_former && with.prng.chance(plan.leave, 100) => self.join(link, with),
            Stage::Reading
                if !self.is_former && self.shared < with.journal.spots() && with.prng.chance(1, 10) =>
            {
                self.join(link, with);
            }
            Stage::Reading => self.read(link, with),
        }
    }

    /// Does what it must to stay a member and nothing else.
    pub fn settle(&mut self, link: &mut Link, with: &mut With<'_>) {
        match self.stage {
            Stage::Out => self.join(link, with),
            Stage::Reading if self.shared < with.journal.spots() => self.join(link, with),
            Stage::Reading => self.heartbeat(link, with),
            Stage::Joining | Stage::Syncing | Stage::Placing | Stage::Gone => {}
        }
    }

    fn join(&mut self, link: &mut Link, with: &mut With<'_>) {
        self.stage = Stage::Joining;
        self.places.clear();
        let mut body = Vec::new();
        body.text(GROUP);
        body.i32(with.plan.session_ms);
        body.i32(REBALANCE_MS);
        body.text(&self.id);
        link::put_instance(&mut body, self.instance);
        body.text("consumer");
        body.i32(1);
        body.text("range");
        body.blob(&subscription(with.journal));
        let newest = with.groups.newest(GROUP);
        link.ask(wire::JOIN_GROUP, Ask::Join { newest, asked_us: with.mono_us }, &body);
    }

    fn leave(&mut self, link: &mut Link) {
        self.stage = Stage::Out;
        let mut body = Vec::new();
        body.text(GROUP);
        body.i32(1);
        body.text(&self.id);
        link::put_instance(&mut body, self.instance);
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
            let name = with.name(GROUP, generation, self.instance);
            reader::commit((GROUP, name, &self.id), &known, link, with);
        } else if percent < 60 {
            self.heartbeat(link, with);
        }
        if link.awaits(|ask| matches!(ask, Ask::Fetch(..) | Ask::Offset { .. })) {
            return;
        }
        if let Some((spot, _)) = self.places.iter().find(|(_, place)| place.is_none()) {
            return reader::ask_offset(*spot, link::At::Start, link, with);
        }
        if !known.is_empty() {
            fetching::fetch(&known, link, with);
        }
    }

    fn heartbeat(&self, link: &mut Link, with: &mut With<'_>) {
        if link.awaits(|ask| matches!(ask, Ask::Heartbeat(_))) {
            return;
        }
        let mut body = Vec::new();
        self.put_who(self.generation, &mut body);
        let name = with.name(GROUP, self.generation, self.instance);
        link.ask(wire::HEARTBEAT, Ask::Heartbeat(name), &body);
    }

    fn put_who(&self, generation: i32, body: &mut Vec<u8>) {
        body.text(GROUP);
        body.i32(generation);
        body.text(&self.id);
        link::put_instance(body, self.instance);
    }

    pub fn answered(
        &mut self,
        ask: Ask,
        mut fields: Fields<'_>,
        link: &mut Link,
        with: &mut With<'_>,
    ) -> Result<(), Fault> {
        match ask {
            Ask::Join { newest, asked_us } => {
                in_time("a join", asked_us, with)?;
                self.joined(newest, fields, link, with)
            }
            Ask::Sync { asked_us } => {
                in_time("a share", asked_us, with)?;
                self.synced(fields, link, with)
            }
            Ask::Heartbeat(name) => {
                fields.i32()?;
                let why = fields.i16()?;
                if why == code::NONE {
                    with.groups.may(GROUP, name, "lives on")?;
                    self.is_sure |= name.generation == self.generation;
                }
                self.told(why, name.generation, with)
            }
            Ask::Leave => {
                fields.i32()?;
                self.refused(fields.i16()?, with)
            }
            Ask::Fetch(_, cursors) => {
                for (spot, place, _) in fetching::fetched(&cursors, fields, with)? {
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
            Ask::Commit { group, name, commits } => {
                let why = reader::committed(group, name, &commits, fields, with)?;
                self.told(why, name.generation, with)
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
    fn told(&mut self, why: i16, generation: i32, with: &mut With<'_>) -> Result<(), Fault> {
        if generation == self.generation && self.stage == Stage::Reading {
            match why {
                code::REBALANCE_IN_PROGRESS => self.stage = Stage::Out,
                code::ILLEGAL_GENERATION | code::UNKNOWN_MEMBER_ID => self.begin_anew(),
                _ => {}
            }
        }
        self.refused(why, with)
    }

    /// Whether a refusal is one that members know.
    fn refused(&mut self, why: i16, with: &mut With<'_>) -> Result<(), Fault> {
        match why {
            code::NONE
            | code::COORDINATOR_NOT_AVAILABLE
            | code::COORDINATOR_LOAD_IN_PROGRESS
            | code::ILLEGAL_GENERATION
            | code::UNKNOWN_MEMBER_ID
            | code::REBALANCE_IN_PROGRESS => Ok(()),
            code::FENCED_INSTANCE_ID if self.may_come_twice => {
                self.begin_anew();
                Ok(())
            }
            code::FENCED_INSTANCE_ID if self.is_former => {
                with.journal.seen.fenced += 1;
                self.stage = Stage::Gone;
                Ok(())
            }
            why => Err(("G5", format!("a member is refused with {why}"))),
        }
    }

    /// Who begins anew where nobody else has come or gone changes nothing for the others.
    fn keeps_generation(&self, generation: i32) -> Result<(), Fault> {
        match &self.keeps {
            Some((before, _)) if *before != generation => {
                let what = format!("a member came back to generation {before} and is in {generation}");
                Err(("G5", what))
            }
            _ => Ok(()),
        }
    }

    fn begin_anew(&mut self) {
        (self.stage, self.generation) = (if self.is_former { Stage::Gone } else { Stage::Out }, -1);
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
            why => return self.refused(why, with),
        }
        self.keeps_generation(generation)?;
        if let Some(instance) = self.instance.filter(|_| !self.is_former) {
            let now = with.journal.tick();
            with.groups.begun(GROUP, instance, now);
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
            share.text(person(&self.leader));
            share.i32(members.len() as i32);
            share.i32(spots as i32);
            let of_member = (0..spots).filter(|spot| spot % members.len() == at);
            share.i32(of_member.clone().count() as i32);
            of_member.for_each(|spot| share.i32(spot as i32));
            body.blob(&share);
        }
        link.ask(wire::SYNC_GROUP, Ask::Sync { asked_us: with.mono_us }, &body);
    }

    fn synced(&mut self, mut fields: Fields<'_>, link: &mut Link, with: &mut With<'_>) -> Result<(), Fault> {
        fields.i32()?;
        let (why, mut share) = (fields.i16()?, Fields(fields.blob()?));
        self.stage = Stage::Out;
        if matches!(why, code::ILLEGAL_GENERATION | code::UNKNOWN_MEMBER_ID) {
            self.begin_anew();
        }
        if why != code::NONE {
            return self.refused(why, with);
        }
        let (generation, leader) = (share.i32()?, share.text()?);
        let (sharers, shared) = (share.i32()?, share.i32()?);
        if generation != self.generation || leader != person(&self.leader) {
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
        if let Some((generation, kept)) = self.keeps.take() {
            if kept != spots {
                let what =
                    format!("a member came back to generation {generation} and {kept:?}, gets {spots:?}");
                return Err(("G5", what));
            }
            with.journal.seen.statics_kept += 1;
        }
        (self.sharers, self.shared) = (sharers as usize, shared as usize);
        self.is_sure = true;
        self.places = spots.iter().map(|spot| (*spot, None)).collect();
        self.stage = Stage::Placing;
        reader::ask_committed(GROUP, &spots, link, with);
        Ok(())
    }
}

/// Nobody waits longer for others than they may take.
fn in_time(what: &str, asked_us: u64, with: &With<'_>) -> Result<(), Fault> {
    match with.mono_us - asked_us {
        ..ANSWER_US => Ok(()),
        late => Err(("G5", format!("{what} is answered after {late} us"))),
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
