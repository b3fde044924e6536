//! Who founds the topics that the others use.
//!
//! In: chances to act. Out: one request at a time, until each topic is there for certain.

use super::link::{self, Ask, Link, With};
use super::wire::{self, Fields, PutFields, code};
use crate::client::Fault;

/// Creates the topics, or finds them.
#[derive(Debug, Default)]
pub(super) struct Founder {
    /// How many are there for certain.
    pub founded: usize,
}

impl Founder {
    pub fn act(&mut self, link: &mut Link, with: &mut With<'_>) {
        let Some(topic) = with.journal.topics.get(self.founded).filter(|_| link.under_way() == 0) else {
            return;
        };
        let mut body = Vec::new();
        body.i32(1);
        body.text(&topic.name);
        if topic.by_itself {
            body.i8(1);
            return link.ask(wire::METADATA, Ask::Find, &body);
        }
        body.i32(topic.partitions);
        body.i16(1);
        body.i32(0);
        let configs = topic.configs();
        body.i32(configs.len() as i32);
        for (name, value) in configs {
            body.text(name);
            body.text(&value);
        }
        body.i32(30_000);
        body.i8(0);
        link.ask(wire::CREATE_TOPICS, Ask::Create, &body);
    }

    pub fn answered(&mut self, ask: &Ask, mut fields: Fields<'_>, with: &mut With<'_>) -> Result<(), Fault> {
        let why = match ask {
            Ask::Create => {
                fields.take(8)?;
                fields.text()?;
                fields.i16()?
            }
            Ask::Find => {
                fields.i32()?;
                fields.list(|node| {
                    node.i32()?;
                    node.text()?;
                    node.i32()?;
                    node.text().map(drop)
                })?;
                fields.text()?;
                fields.take(8)?;
                fields.i16()?
            }
            other => return link::greeting(other, fields),
        };
        match why {
            code::NONE | code::TOPIC_ALREADY_EXISTS => self.founded += 1,
            code::LEADER_NOT_AVAILABLE | code::REQUEST_TIMED_OUT => {}
            why => {
                let topic = &with.journal.topics[self.founded].name;
                return Err(("L10", format!("creating '{topic}' is refused with {why}")));
            }
        }
        Ok(())
    }
}
