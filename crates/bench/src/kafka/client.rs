//! Setting a run up: which versions the server speaks, creating topics, finding out who leads them, deleting them.
//!
//! In: a plan. Out: topics that can be written to. Never: follows partitions that move while it runs.

use std::time::{Duration, Instant};

use super::consumer;
use super::link::Link;
use super::plan::Plan;
use super::wire::{Answer, CREATE, DELETE, FETCH, METADATA, PRODUCE, PutKafka, VERSIONS, error_name};
use crate::error::{Error, Result};

/// How long topics may take until they are led.
const PATIENCE: Duration = Duration::from_secs(30);
const TOPIC_EXISTS: i16 = 36;

/// A server by its address.
pub(crate) type Address = (String, u16);
/// The servers of a cluster by their ids.
type Servers = Vec<(i32, Address)>;

/// Refuses a server that does not speak what the bench speaks.
pub(crate) fn check_versions(link: &mut Link) -> Result<()> {
    let bytes = link.ask(VERSIONS, |_| {})?;
    let mut answer = Answer(&bytes);
    match answer.i16()? {
        0 => {}
        code => {
            return Err(Error::new(format!("the server does not tell its versions: {}", error_name(code))));
        }
    }
    let mut missing = vec![PRODUCE, FETCH, METADATA, CREATE, DELETE];
    answer.list(|answer| {
        let (key, least, most) = (answer.i16()?, answer.i16()?, answer.i16()?);
        missing.retain(|api| api.0 != key || !(least..=most).contains(&api.1));
        Ok(())
    })?;
    match missing.first() {
        None => Ok(()),
        Some(api) => {
            Err(Error::new(format!("the server does not speak version {} of request {}", api.1, api.0)))
        }
    }
}

/// Creates the topics.
pub(crate) fn create(link: &mut Link, plan: &Plan, names: &[String]) -> Result<()> {
    let bytes = link.ask(CREATE, |out| {
        out.put_i32(names.len() as i32);
        for name in names {
            out.put_text(name);
            out.put_i32(plan.partitions as i32);
            out.put_i16(plan.replicas);
            out.put_i32(0);
            out.put_i32(i32::from(plan.retention.is_some()));
            if let Some(bytes) = plan.retention {
                out.put_text("retention.bytes");
                out.put_text(&bytes.to_string());
            }
        }
        out.put_i32(30_000);
        out.push(0);
    })?;
    let mut answer = Answer(&bytes);
    answer.i32()?;
    answer.list(|answer| {
        let name = answer.text()?.unwrap_or_default();
        let (code, message) = (answer.i16()?, answer.text()?.unwrap_or_default());
        match code {
            0 | TOPIC_EXISTS => Ok(()),
            code => Err(Error::new(format!("creating {name}: {} {message}", error_name(code)))),
        }
    })
}

/// Deletes the topics.
pub(crate) fn delete(link: &mut Link, names: &[String]) -> Result<()> {
    let bytes = link.ask(DELETE, |out| {
        out.put_i32(names.len() as i32);
        names.iter().for_each(|name| out.put_text(name));
        out.put_i32(30_000);
    })?;
    let mut answer = Answer(&bytes);
    answer.i32()?;
    answer.list(|answer| {
        let (name, code) = (answer.text()?.unwrap_or_default(), answer.i16()?);
        if code == 0 { Ok(()) } else { Err(Error::new(format!("deleting {name}: {}", error_name(code)))) }
    })
}

/// Waits until all partitions are led and served, and returns who leads them: one server for all.
pub(crate) fn leader(link: &mut Link, plan: &Plan, names: &[String]) -> Result<Address> {
    let start = Instant::now();
    loop {
        let bytes = link.ask(METADATA, |out| {
            out.put_i32(names.len() as i32);
            names.iter().for_each(|name| out.put_text(name));
            out.push(0);
        })?;
        let (servers, leaders) = metadata(&bytes)?;
        if leaders.len() == plan.all_partitions() as usize && leaders.iter().all(|leader| *leader >= 0) {
            let leader = one_of(&servers, &leaders)?;
            if consumer::is_served(&mut Link::connect(&leader.0, leader.1)?, plan, names)? {
                return Ok(leader);
            }
        }
        if start.elapsed() > PATIENCE {
            return Err(Error::new("the topics have no leaders"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The servers, and the leaders of all partitions that are named; -1 where there is none.
fn metadata(bytes: &[u8]) -> Result<(Servers, Vec<i32>)> {
    let (mut servers, mut leaders) = (Servers::new(), Vec::new());
    let mut answer = Answer(bytes);
    answer.i32()?;
    answer.list(|answer| {
        let (id, host, port) = (answer.i32()?, answer.text()?.unwrap_or_default(), answer.i32()?);
        answer.text()?;
        servers.push((id, (host.to_owned(), port as u16)));
        Ok(())
    })?;
    answer.text()?;
    answer.i32()?;
    answer.list(|answer| {
        answer.i16()?;
        answer.text()?;
        answer.i8()?;
        answer.list(|answer| {
            let (code, _index, leader) = (answer.i16()?, answer.i32()?, answer.i32()?);
            answer.i32()?;
            (0..3).try_for_each(|_| answer.list(|answer| answer.i32().map(drop)))?;
            leaders.push(if code == 0 { leader } else { -1 });
            Ok(())
        })
    })?;
    Ok((servers, leaders))
}

fn one_of(servers: &[(i32, Address)], leaders: &[i32]) -> Result<Address> {
    let first = leaders.first().copied().unwrap_or(-1);
    if leaders.iter().any(|leader| *leader != first) {
        return Err(Error::new("the partitions are led by several servers: this tool measures one"));
    }
    let found = servers.iter().find(|(id, _)| *id == first).map(|(_, address)| address.clone());
    found.ok_or_else(|| Error::new(format!("the server does not say where leader {first} is")))
}
