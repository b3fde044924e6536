//! What others may know of groups: operators, and whoever keeps the offsets.

use model::LogRefusal;
use model::membership::{GroupDescription, MemberDescription};

use crate::Coordinator;
use crate::group::{Group, Phase};
use crate::member::Member;
use crate::subscription;

impl Group {
    fn overview(&self) -> GroupDescription {
        GroupDescription {
            group: self.name.to_string(),
            phase: self.phase(),
            protocol_type: self.protocol_type.clone(),
            protocol: if self.phase == Phase::Stable { self.protocol.clone() } else { String::new() },
            members: Vec::new(),
        }
    }

    fn describe(&self) -> GroupDescription {
        let stable = self.phase == Phase::Stable;
        let seen = |(id, member): (&String, &Member)| MemberDescription {
            member: id.clone(),
            instance: member.instance.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            metadata: if stable { member.metadata(&self.protocol).to_vec() } else { Vec::new() },
            assignment: if stable { member.assignment.clone() } else { Vec::new() },
        };
        GroupDescription { members: self.members.iter().map(seen).collect(), ..self.overview() }
    }

    /// Whether the members read `topic`, as far as can be told: what cannot be read might say so.
    fn reads(&self, topic: &str) -> bool {
        let reads = |member: &Member| {
            let mut all = member.protocols.iter().map(|(_, metadata)| metadata.as_slice());
            all.any(|metadata| subscription::names(metadata, topic).unwrap_or(true))
        };
        self.members.values().any(reads)
    }
}

impl Coordinator {
    /// Whether the group has members or expects some. One with nothing but committed offsets is not known here.
    pub fn exists(&self, group: &str) -> bool {
        self.groups.contains_key(group)
    }

    /// Whether the group has members.
    pub fn has_members(&self, group: &str) -> bool {
        self.groups.get(group).is_some_and(|group| !group.members.is_empty())
    }

    /// The groups with members, or that expect some, without these, in the order of their names.
    pub fn list(&self) -> Vec<GroupDescription> {
        self.groups.values().map(Group::overview).collect()
    }

    /// The group as it is; dead where there are no members, which says nothing about committed offsets.
    pub fn describe(&self, group: &str) -> GroupDescription {
        let unknown = || GroupDescription { group: group.to_owned(), ..Default::default() };
        self.groups.get(group).map_or_else(unknown, Group::describe)
    }

    /// Whether the committed offsets of a topic may be deleted: not while members read it, nor while there are members
    /// of whom nothing is known but that they are there.
    pub fn may_forget(&self, group: &str, topic: &str) -> Result<(), LogRefusal> {
        match self.groups.get(group).filter(|group| !group.members.is_empty()) {
            None => Ok(()),
            Some(group) if group.protocol_type != "consumer" => Err(LogRefusal::GroupNotEmpty),
            Some(group) if group.reads(topic) => Err(LogRefusal::GroupSubscribed),
            Some(_) => Ok(()),
        }
    }
}
