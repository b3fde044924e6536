//! What the kernel says about processes: CPU time, resident memory, and who listens on a port.
//!
//! In: process ids or a port. Out: numbers from `/proc`. Never signals a process; whatever cannot be read is `None`,
//! because a server on another machine is a legitimate thing to measure.

use std::collections::BTreeSet;
use std::fs;

/// The processes of one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Processes {
    pids: Vec<u32>,
}

impl Processes {
    /// These processes and their children.
    pub(crate) fn new(pids: Vec<u32>) -> Processes {
        Processes { pids }
    }

    /// The server's processes: those given, else whoever listens on the port if that is on this machine.
    pub(crate) fn of_server(pids: &[u32], is_here: bool, port: u16) -> Option<Processes> {
        match pids {
            [] if is_here => Processes::listening_on(port),
            [] => None,
            pids => Some(Processes::new(pids.to_vec())),
        }
    }

    /// Whoever listens on TCP `port` of this machine, if that can be seen.
    pub(crate) fn listening_on(port: u16) -> Option<Processes> {
        let sockets = listening_sockets(port);
        let holds = |pid: &u32| {
            let Ok(fds) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
            fds.flatten().any(|fd| {
                fs::read_link(fd.path()).is_ok_and(|to| sockets.contains(to.to_string_lossy().as_ref()))
            })
        };
        let pid = all_pids().into_iter().find(holds)?;
        Some(Processes { pids: vec![pid] })
    }

    /// The process ids as text.
    pub(crate) fn names(&self) -> String {
        self.pids.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
    }

    /// CPU time spent so far in all threads of the processes and their children, in nanoseconds.
    pub(crate) fn cpu_ns(&self) -> Option<u64> {
        let family = self.family();
        let mut total = 0;
        for pid in &family {
            // A child that ended between two looks is in its parent's account by now.
            match stat(*pid) {
                Some(stat) => total += stat.ticks,
                None if self.pids.contains(pid) => return None,
                None => {}
            }
        }
        Some(total * 1_000_000_000 / rustix::param::clock_ticks_per_second())
    }

    /// Resident memory of the processes and their children, in bytes.
    pub(crate) fn resident(&self) -> Option<u64> {
        let sizes = self.family().into_iter().filter_map(|pid| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            resident_of(&status)
        });
        let total: u64 = sizes.sum();
        (total > 0).then_some(total)
    }

    /// The processes and all that descend from them.
    fn family(&self) -> Vec<u32> {
        let parents: Vec<(u32, u32)> =
            all_pids().into_iter().filter_map(|pid| Some((pid, stat(pid)?.parent))).collect();
        let mut family = self.pids.clone();
        let mut next = 0;
        while let Some(&parent) = family.get(next) {
            let children = parents.iter().filter(|(_, p)| *p == parent).map(|(pid, _)| *pid);
            let new: Vec<u32> = children.filter(|pid| !family.contains(pid)).collect();
            family.extend(new);
            next += 1;
        }
        family
    }
}

/// CPU time of this process so far, in nanoseconds.
pub(crate) fn own_cpu_ns() -> Option<u64> {
    let ticks = stat(std::process::id())?.ticks;
    Some(ticks * 1_000_000_000 / rustix::param::clock_ticks_per_second())
}

/// CPU time of all kernel threads so far, in nanoseconds: the part of writing that no process is charged with.
pub(crate) fn kernel_cpu_ns() -> Option<u64> {
    let threads =
        all_pids().into_iter().filter(|pid| *pid == 2 || stat(*pid).is_some_and(|stat| stat.parent == 2));
    let spent = threads.filter_map(|pid| {
        let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    Some(spent.sum()).filter(|total| *total > 0)
}

struct Stat {
    parent: u32,
    ticks: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    stat_of(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Parent and own plus reaped children's user and system time. The name may contain anything but ends with `)`.
fn stat_of(text: &str) -> Option<Stat> {
    let fields: Vec<&str> = text.rsplit_once(") ")?.1.split(' ').collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Stat { parent: number(1)? as u32, ticks: number(11)? + number(12)? + number(13)? + number(14)? })
}

fn resident_of(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

fn all_pids() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let mut pids: Vec<u32> =
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    pids
}

/// The `socket:[inode]` names of the sockets that listen on `port`.
fn listening_sockets(port: u16) -> BTreeSet<String> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].iter().filter_map(|path| fs::read_to_string(path).ok());
    tables.flat_map(|table| listeners_of(&table, port)).collect()
}

fn listeners_of(table: &str, port: u16) -> Vec<String> {
    let listener = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
        let (_, hex) = local.rsplit_once(':')?;
        let matches = *state == "0A" && u16::from_str_radix(hex, 16) == Ok(port);
        matches.then(|| format!("socket:[{inode}]"))
    };
    table.lines().skip(1).filter_map(listener).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let stat = stat_of("7 (a) b) S 3 7 7 0 -1 0 1 2 3 4 100 20 3 4 20 0").unwrap();
        assert_eq!((stat.parent, stat.ticks), (3, 127));
    }

    #[test]
    fn only_listeners_of_the_port_count() {
        let table = "  sl  local_address rem_address   st\n\
            0: 0100007F:1628 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0\n\
            1: 0100007F:1628 0100007F:AAAA 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0\n\
            2: 0100007F:1629 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1 0\n";
        assert_eq!(listeners_of(table, 5672), ["socket:[4711]"]);
    }

    #[test]
    fn this_process_is_found_by_its_port_and_has_figures() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let found = Processes::listening_on(listener.local_addr().unwrap().port()).unwrap();
        assert_eq!(found, Processes::new(vec![std::process::id()]));
        assert!(found.resident().unwrap() > 100_000);
        let before = found.cpu_ns().unwrap();
        assert!(own_cpu_ns().unwrap() >= before);
        assert_eq!(resident_of("Name:\tx\nVmRSS:\t   12 kB\n"), Some(12 * 1024));
    }

    #[test]
    fn nobody_is_nobody() {
        assert_eq!(Processes::new(vec![u32::MAX]).cpu_ns(), None);
        assert_eq!(Processes::new(vec![u32::MAX]).resident(), None);
    }
}
