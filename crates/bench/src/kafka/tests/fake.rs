//! A Kafka server that keeps batches in memory, one thread per connection, and breaks its promises on request.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::error::Result;
use crate::kafka::wire::{Answer, PutKafka};

/// What the server does to the batch of this number, counted over all batches from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Lose(u64),
    Repeat(u64),
    /// Keeps it back until the partition's next one is there.
    Swap(u64),
    Flip(u64),
    /// Changes a byte of a value and makes the checksum fit.
    Forge(u64),
    Refuse(u64),
    Misroute(u64),
    NoFetch,
}

type Partition = (String, i32);

#[derive(Default)]
struct State {
    /// Batches one behind the other, with their offsets set.
    logs: BTreeMap<Partition, (i64, Vec<u8>)>,
    batches: u64,
    held: Option<(Partition, Vec<u8>)>,
    /// Whether somebody asked before: the first question finds no leader, as with a topic that is new.
    is_led: bool,
}

struct Server {
    port: u16,
    fault: Option<Fault>,
    state: Mutex<State>,
}

/// Starts the server on a port of its own.
pub(super) fn start(fault: Option<Fault>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = Arc::new(Server { port, fault, state: Mutex::default() });
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let server = server.clone();
            std::thread::spawn(move || server.serve(stream));
        }
    });
    port
}

impl Server {
    /// Serves one connection until it ends.
    fn serve(&self, mut stream: TcpStream) {
        loop {
            let mut size = [0; 4];
            if stream.read_exact(&mut size).is_err() {
                return;
            }
            let mut request = vec![0; u32::from_be_bytes(size) as usize];
            stream.read_exact(&mut request).unwrap();
            let mut out = vec![0; 4];
            if self.answer(&mut Answer(&request), &mut out).unwrap() {
                let size = (out.len() - 4) as i32;
                out[..4].copy_from_slice(&size.to_be_bytes());
                if stream.write_all(&out).is_err() {
                    return;
                }
            }
        }
    }

    /// Whether there is an answer.
    fn answer(&self, request: &mut Answer<'_>, out: &mut Vec<u8>) -> Result<bool> {
        let (api, _version, correlation) = (request.i16()?, request.i16()?, request.i32()?);
        request.text()?;
        out.put_i32(correlation);
        match api {
            0 => return self.produce(request, out),
            1 => self.fetch(request, out)?,
            3 => self.metadata(request, out)?,
            18 => self.versions(out),
            19 => self.create(request, out)?,
            _ => delete(request, out)?,
        }
        Ok(true)
    }

    fn versions(&self, out: &mut Vec<u8>) {
        let apis =
            [(0, 7), (1, if self.fault == Some(Fault::NoFetch) { 10 } else { 12 }), (3, 8), (19, 5), (20, 4)];
        out.put_i16(0);
        out.put_i32(apis.len() as i32);
        for (api, most) in apis {
            [api, 0, most].into_iter().for_each(|number| out.put_i16(number));
        }
    }

    fn create(&self, request: &mut Answer<'_>, out: &mut Vec<u8>) -> Result<()> {
        let mut state = self.state.lock().unwrap();
        let mut names = Vec::new();
        request.list(|request| {
            let (name, partitions) = (request.text()?.unwrap().to_owned(), request.i32()?);
            request.bytes(10)?;
            for partition in 0..partitions {
                state.logs.insert((name.clone(), partition), (0, Vec::new()));
            }
            names.push(name);
            Ok(())
        })?;
        out.put_i32(0);
        out.put_i32(names.len() as i32);
        for name in names {
            out.put_text(&name);
            out.put_i16(0);
            out.put_i16(-1);
        }
        Ok(())
    }

    fn metadata(&self, request: &mut Answer<'_>, out: &mut Vec<u8>) -> Result<()> {
        let state = self.state.lock().unwrap();
        [0, 1, 7].into_iter().for_each(|number| out.put_i32(number));
        out.put_text("127.0.0.1");
        out.put_i32(i32::from(self.port));
        out.put_i16(-1);
        out.put_text("cluster");
        out.put_i32(7);
        let mut topics = Vec::new();
        request.list(|request| {
            topics.push(request.text()?.unwrap().to_owned());
            Ok(())
        })?;
        out.put_i32(topics.len() as i32);
        for topic in topics {
            out.put_i16(0);
            out.put_text(&topic);
            out.push(0);
            let partitions = state.logs.keys().filter(|(name, _)| *name == topic);
            out.put_i32(partitions.clone().count() as i32);
            for (_, partition) in partitions {
                out.put_i16(0);
                // The leader and its epoch, and of replicas one, one and none.
                [*partition, 7, 0, 1, 7, 1, 7, 0].into_iter().for_each(|number| out.put_i32(number));
            }
        }
        Ok(())
    }

    fn produce(&self, request: &mut Answer<'_>, out: &mut Vec<u8>) -> Result<bool> {
        let mut state = self.state.lock().unwrap();
        request.text()?;
        let acks = request.i16()?;
        request.i32()?;
        request.list(|request| {
            let name = request.text()?.unwrap().to_owned();
            request.list(|request| {
                let at = (name.clone(), request.i32()?);
                let code = state.take(&at, request.blob()?, self.fault);
                out.put_i32(1);
                out.put_text(&name);
                out.put_i32(1);
                out.put_i32(at.1);
                out.put_i16(code);
                (0..3).for_each(|_| out.put_i64(0));
                out.put_i32(0);
                Ok(())
            })
        })?;
        Ok(acks != 0)
    }

    fn fetch(&self, request: &mut Answer<'_>, out: &mut Vec<u8>) -> Result<()> {
        request.bytes(4 + 4 + 4 + 4 + 1 + 4 + 4)?;
        let mut wanted = Vec::new();
        request.list(|request| {
            let name = request.text()?.unwrap().to_owned();
            request.list(|request| {
                let partition = request.i32()?;
                request.bytes(4)?;
                let offset = i64::from_be_bytes(request.bytes(8)?.try_into().unwrap());
                request.bytes(8)?;
                wanted.push(((name.clone(), partition), offset, request.i32()? as usize));
                Ok(())
            })
        })?;
        let mut state = self.state.lock().unwrap();
        let code = if std::mem::replace(&mut state.is_led, true) { 0 } else { 6 };
        out.put_i32(0);
        out.put_i16(0);
        out.put_i32(0);
        out.put_i32(wanted.len() as i32);
        let mut sent = 0;
        for (at, offset, most) in &wanted {
            let records = state.records(at, *offset, *most);
            sent += records.len();
            out.put_text(&at.0);
            out.put_i32(1);
            out.put_i32(at.1);
            out.put_i16(code);
            (0..3).for_each(|_| out.put_i64(0));
            out.put_i32(-1);
            out.put_i32(-1);
            out.put_i32(records.len() as i32);
            out.extend_from_slice(records);
        }
        drop(state);
        if sent == 0 {
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}

fn delete(request: &mut Answer<'_>, out: &mut Vec<u8>) -> Result<()> {
    out.put_i32(0);
    let mut names = Vec::new();
    request.list(|request| {
        names.push(request.text()?.unwrap());
        Ok(())
    })?;
    out.put_i32(names.len() as i32);
    for name in names {
        out.put_text(name);
        out.put_i16(0);
    }
    Ok(())
}

impl State {
    fn take(&mut self, at: &Partition, batch: &[u8], fault: Option<Fault>) -> i16 {
        let number = self.batches;
        self.batches += 1;
        assert_eq!(batch[17..21], crc_fast::crc32_iscsi(&batch[21..]).to_be_bytes(), "the checksum is right");
        let mut batch = batch.to_vec();
        let other = (at.0.clone(), at.1 ^ 1);
        match fault {
            Some(Fault::Lose(n)) if n == number => {}
            Some(Fault::Refuse(n)) if n == number => return 87,
            Some(Fault::Swap(n)) if n == number => self.held = Some((at.clone(), batch)),
            Some(Fault::Misroute(n)) if n == number => self.append(&other, batch),
            Some(Fault::Repeat(n)) if n == number => (0..2).for_each(|_| self.append(at, batch.clone())),
            Some(Fault::Flip(n)) if n == number => {
                batch[100] ^= 1;
                self.append(at, batch);
            }
            Some(Fault::Forge(n)) if n == number => {
                // The last byte of a value, in front of the count of headers.
                let end = batch.len() - 2;
                batch[end] ^= 1;
                let checksum = crc_fast::crc32_iscsi(&batch[21..]);
                batch[17..21].copy_from_slice(&checksum.to_be_bytes());
                self.append(at, batch);
            }
            _ => {
                self.append(at, batch);
                if let Some((_, held)) = self.held.take_if(|(held, _)| held == at) {
                    self.append(at, held);
                }
            }
        }
        0
    }

    fn append(&mut self, at: &Partition, mut batch: Vec<u8>) {
        let (end, log) = self.logs.get_mut(at).unwrap();
        batch[..8].copy_from_slice(&end.to_be_bytes());
        *end += i64::from(u32::from_be_bytes(*batch[57..].first_chunk().unwrap()));
        log.extend_from_slice(&batch);
    }

    /// Batches from the one with this offset on: at least one, and the next cut off where the bound is.
    fn records(&self, at: &Partition, offset: i64, most: usize) -> &[u8] {
        let log = &self.logs[at].1;
        let size = |at: usize| 12 + u32::from_be_bytes(*log[at + 8..].first_chunk().unwrap()) as usize;
        let mut from = 0;
        while from < log.len() {
            let base = i64::from_be_bytes(*log[from..].first_chunk().unwrap());
            let last = i32::from_be_bytes(*log[from + 23..].first_chunk().unwrap());
            if base + i64::from(last) >= offset {
                return &log[from..log.len().min(from + most.max(size(from)))];
            }
            from += size(from);
        }
        &[]
    }
}
