//! The bytes of commands about topics; drawn in `command`.

use base::{Put, Reader};
use model::topic::TopicDeclaration;
use model::{Damaged, GroupId, TopicId};

use crate::Command;
use crate::alter::ConfigValues;
use crate::values::{put_flags, put_text, read_flags, read_text};

pub(crate) fn put_create<P: Put>(out: &mut P, declaration: &TopicDeclaration, groups: &[GroupId]) {
    let TopicDeclaration { name, partitions, replicas, configs } = declaration;
    put_text(out, name);
    put_flags(out, &[partitions.is_some(), replicas.is_some()]);
    partitions.iter().for_each(|count| out.put_u32_le(*count));
    replicas.iter().for_each(|count| out.put_u16_le(*count));
    out.put_varint(configs.len() as u64);
    for (name, value) in configs {
        put_text(out, name);
        put_text(out, value);
    }
    put_groups(out, groups);
}

pub(crate) fn put_groups(out: &mut impl Put, groups: &[GroupId]) {
    out.put_varint(groups.len() as u64);
    groups.iter().for_each(|group| out.put_u32_le(group.0));
}

pub(crate) fn put_topic_id(out: &mut impl Put, id: TopicId) {
    out.put(&id.0.to_le_bytes());
}

pub(crate) fn put_values<P: Put>(out: &mut P, values: &ConfigValues) {
    out.put_varint(values.len() as u64);
    for (name, value) in values {
        put_text(out, name);
        put_flags(out, &[value.is_some()]);
        value.iter().for_each(|value| put_text(out, value));
    }
}

pub(crate) fn read_create(reader: &mut Reader<'_>) -> Result<Command, Damaged> {
    let vhost = read_text(reader)?;
    let name = read_text(reader)?;
    let [has_partitions, has_replicas] = read_flags(reader)?;
    let partitions = has_partitions.then(|| reader.u32_le()).transpose()?;
    let replicas = has_replicas.then(|| reader.u16_le()).transpose()?;
    let mut configs = Vec::new();
    for _ in 0..reader.varint()? {
        configs.push((read_text(reader)?, read_text(reader)?));
    }
    let declaration = TopicDeclaration { name, partitions, replicas, configs };
    Ok(Command::CreateTopic { vhost, declaration, groups: read_groups(reader)? })
}

pub(crate) fn read_add(reader: &mut Reader<'_>) -> Result<Command, Damaged> {
    let vhost = read_text(reader)?;
    let name = read_text(reader)?;
    let count = reader.u32_le()?;
    Ok(Command::AddPartitions { vhost, name, count, groups: read_groups(reader)? })
}

pub(crate) fn read_delete(reader: &mut Reader<'_>) -> Result<Command, Damaged> {
    let vhost = read_text(reader)?;
    Ok(Command::DeleteTopic { vhost, id: read_topic_id(reader)? })
}

pub(crate) fn read_alter(reader: &mut Reader<'_>) -> Result<Command, Damaged> {
    let vhost = read_text(reader)?;
    let name = read_text(reader)?;
    let mut configs = ConfigValues::new();
    for _ in 0..reader.varint()? {
        let name = read_text(reader)?;
        let [is_set] = read_flags(reader)?;
        configs.push((name, is_set.then(|| read_text(reader)).transpose()?));
    }
    Ok(Command::AlterTopic { vhost, name, configs })
}

pub(crate) fn read_groups(reader: &mut Reader<'_>) -> Result<Vec<GroupId>, Damaged> {
    let mut groups = Vec::new();
    for _ in 0..reader.varint()? {
        groups.push(GroupId(reader.u32_le()?));
    }
    Ok(groups)
}

pub(crate) fn read_topic_id(reader: &mut Reader<'_>) -> Result<TopicId, Damaged> {
    Ok(TopicId(u128::from_le_bytes(reader.array()?)))
}
