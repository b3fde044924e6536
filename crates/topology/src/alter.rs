//! Changing what topics are configured with.
//!
//! In: changes as a client asks for them, resolved to plain values when they are proposed. Out: new configurations, or
//! refusals. A configuration that goes back to its default goes to what the stream was declared with, where an AMQP
//! client declared one.

use std::collections::BTreeMap;

use model::topic::{ConfigChange, TopicDeclaration};
use model::{Limits, LogRefusal};

use crate::configs::{check_config, check_together, known, plain};
use crate::stream_arguments::configs_of;
use crate::topics::check_topic_name;
use crate::topology::Answer;
use crate::{QueueRecord, Topology};

/// What configurations become, by name; `None`: their default.
pub type ConfigValues = Vec<(String, Option<String>)>;

impl Topology {
    /// Refuses what cannot be created as a topic now; returns the declaration with its number of partitions and its
    /// values in their plain form.
    pub fn validate_topic(
        &self,
        vhost: &str,
        declaration: &TopicDeclaration,
        limits: &Limits,
    ) -> Result<TopicDeclaration, LogRefusal> {
        let mut declaration = declaration.clone();
        for (name, value) in &mut declaration.configs {
            *value = plain(name, value);
        }
        let count = self.check_new_topic(vhost, &declaration)?;
        for (name, value) in &declaration.configs {
            check_limits(name, value, limits)?;
        }
        check_together(&declaration.configs.iter().cloned().collect())?;
        Ok(TopicDeclaration { partitions: Some(count), ..declaration })
    }

    /// What changes come to for a topic: with `replace`, whatever is configured and not named goes to its default.
    pub fn altered(
        &self,
        vhost: &str,
        name: &str,
        changes: &[ConfigChange],
        replace: bool,
        limits: &Limits,
    ) -> Result<ConfigValues, LogRefusal> {
        let Some(topic) = self.topic(vhost, name) else {
            check_topic_name(name)?;
            return Err(LogRefusal::UnknownPartition);
        };
        let mut values = ConfigValues::new();
        for change in changes {
            let (ConfigChange::Set(name, _)
            | ConfigChange::Default(name)
            | ConfigChange::Append(name, _)
            | ConfigChange::Subtract(name, _)) = change;
            let config = known(name)?;
            let had = topic.configs.get(name).map_or(config.default, String::as_str);
            if values.iter().any(|(other, _)| other == name) {
                return Err(LogRefusal::Invalid(format!("configuration '{name}' is changed twice")));
            }
            if matches!(change, ConfigChange::Append(..) | ConfigChange::Subtract(..))
                && !config.kind.is_list()
            {
                return Err(LogRefusal::InvalidConfig(format!("configuration '{name}' is no list")));
            }
            let value = match change {
                ConfigChange::Set(name, value) => Some(plain(name, value)),
                ConfigChange::Default(_) => None,
                ConfigChange::Append(_, items) => Some(appended(had, items)),
                ConfigChange::Subtract(_, items) => Some(subtracted(had, items)),
            };
            if let Some(value) = &value {
                check_config(name, value)?;
                self.check_in_sync(name, value)?;
                check_limits(name, value, limits)?;
            }
            values.push((name.clone(), value));
        }
        if replace {
            let unnamed = topic.configs.keys().filter(|name| !changes_name(changes, name));
            values.extend(unnamed.map(|name| (name.clone(), None)));
        }
        check_together(&with(&topic.configs, &values))?;
        Ok(values)
    }

    pub(crate) fn alter_topic(
        &mut self,
        vhost: &str,
        name: &str,
        values: ConfigValues,
    ) -> Result<Answer, LogRefusal> {
        let topic = self.topic(vhost, name).ok_or(LogRefusal::UnknownPartition)?;
        let mut configs = topic.configs.clone();
        let declared = configs_of(&topic.arguments);
        for (name, value) in values {
            known(&name)?;
            match value.or_else(|| declared.get(&name).cloned()) {
                Some(value) => {
                    check_config(&name, &value)?;
                    configs.insert(name, value);
                }
                None => {
                    configs.remove(&name);
                }
            }
        }
        let id = topic.id;
        let topic = self.topics.get_mut(&id).expect("it was just found");
        if topic.configs == configs {
            return Ok(Answer::TopicAltered { topic: topic.clone(), queues: Vec::new() });
        }
        topic.configs = configs;
        let topic = topic.clone();
        self.version += 1;
        let queues: Vec<QueueRecord> =
            topic.partitions.iter().map(|queue| self.queues[queue].clone()).collect();
        Ok(Answer::TopicAltered { topic, queues })
    }
}

/// Configurations with what they become.
fn with(configs: &BTreeMap<String, String>, values: &ConfigValues) -> BTreeMap<String, String> {
    let mut configs = configs.clone();
    for (name, value) in values {
        match value {
            Some(value) => configs.insert(name.clone(), value.clone()),
            None => configs.remove(name),
        };
    }
    configs
}

fn changes_name(changes: &[ConfigChange], wanted: &str) -> bool {
    changes.iter().any(|change| match change {
        ConfigChange::Set(name, _)
        | ConfigChange::Default(name)
        | ConfigChange::Append(name, _)
        | ConfigChange::Subtract(name, _) => name == wanted,
    })
}

fn items(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|item| !item.is_empty())
}

fn appended(had: &str, added: &str) -> String {
    let mut all: Vec<_> = items(had).collect();
    for item in items(added) {
        if !all.contains(&item) {
            all.push(item);
        }
    }
    all.join(",")
}

fn subtracted(had: &str, taken: &str) -> String {
    let left: Vec<_> = items(had).filter(|item| !items(taken).any(|taken| taken == *item)).collect();
    left.join(",")
}

/// Refuses batches larger than this broker takes.
fn check_limits(name: &str, value: &str, limits: &Limits) -> Result<(), LogRefusal> {
    let most = limits.message_bytes_max;
    if name == "max.message.bytes" && value.parse::<usize>().is_ok_and(|bytes| bytes > most) {
        let text =
            format!("configuration '{name}': {value} bytes are more than the {most} this broker takes");
        return Err(LogRefusal::InvalidConfig(text));
    }
    Ok(())
}
