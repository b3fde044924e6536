//! Runs after a start: the newest manifest names them; their indexes are read and checked, their blocks only when
//! somebody asks for them.
//!
//! Files that the manifest does not name are what an interrupted evacuation or deletion left behind. A file that it
//! names and that is not there or not whole is damage.

use std::collections::BTreeMap;

use crate::checkpoint::Unusable;
use crate::disk::FileName;
use crate::error::OpenError;
use crate::manifest::{self, Manifest, NamedRun};
use crate::recover::{Recovery, damaged};
use crate::run::{self, FOOTER, Footer, Identity, OWN_FILE};
use crate::runs::Run;
use crate::segment;

/// Lengths of files by name.
type Lengths<'a> = BTreeMap<&'a str, u64>;

impl Recovery<'_> {
    pub fn read_runs(&mut self, files: &[(String, u64)]) -> Result<(), OpenError> {
        let manifest = self.read_manifest(files)?;
        self.runs.next_run = manifest.next_run.max(1);
        self.runs.next_manifest = manifest.sequence + 1;
        self.runs.durable = manifest.sequence;
        if manifest.sequence > 0 {
            self.runs.manifests.push(manifest.sequence);
        }
        let lengths: Lengths<'_> = files.iter().map(|(name, length)| (name.as_str(), *length)).collect();
        for named in &manifest.runs {
            let run = self.read_run(named, &lengths)?;
            self.runs.groups.entry(named.group).or_default().runs.push(run);
        }
        for (group, first, last) in &manifest.moved {
            self.runs.groups.entry(*group).or_default().moved.push((*first, *last));
        }
        for (name, _) in files {
            let Some((group, number)) = run::named(self.shard, name) else { continue };
            self.runs.next_run = self.runs.next_run.max(number + 1);
            if !manifest.runs.iter().any(|run| (run.group, run.number) == (group, number)) {
                self.stale.push(run::file_name(self.shard, group, number));
            }
        }
        Ok(())
    }

    /// The newest manifest, or one that says nothing.
    fn read_manifest(&mut self, files: &[(String, u64)]) -> Result<Manifest, OpenError> {
        let manifests = files.iter();
        let mut manifests: Vec<(u64, u64)> = manifests
            .filter_map(|(name, length)| Some((manifest::named(self.shard, name)?, *length)))
            .collect();
        manifests.sort_unstable();
        let newest = manifests.pop();
        let old = manifests.into_iter().map(|(sequence, _)| manifest::file_name(self.shard, sequence));
        self.stale.extend(old);
        let Some((sequence, length)) = newest else { return Ok(Manifest::default()) };
        let name = manifest::file_name(self.shard, sequence);
        let bytes = self.bytes_of(&name, 0, length)?;
        let manifest = Manifest::decode(&bytes, self.shard).map_err(|why| unusable(&name, why))?;
        if manifest.sequence != sequence {
            return Err(damaged(&name, 0, "the manifest is another one than its name says".into()));
        }
        Ok(manifest)
    }

    fn read_run(&mut self, named: &NamedRun, lengths: &Lengths<'_>) -> Result<Run, OpenError> {
        let identity =
            Identity { shard: self.shard, group: named.group, number: named.number, slot: named.slot };
        let file = identity.file_name();
        let lost = |what: &str| OpenError::Damaged {
            what: what.to_owned(),
            file: file.to_string(),
            offset: 0,
            lost: vec![(named.group, named.first, named.last)],
        };
        if lengths.get(&*file) != Some(&named.length) || named.length < FOOTER as u64 {
            return Err(lost("a run is missing or its length is not what the manifest says"));
        }
        let at = named.length - FOOTER as u64;
        let footer = Footer::decode(&self.bytes_of(&file, at, FOOTER as u64)?, named.length);
        let footer = footer.map_err(|why| unusable(&file, why))?;
        if footer.identity != identity {
            return Err(lost("the run is another one than its name says"));
        }
        let (data, end) = if named.slot == OWN_FILE {
            (file.clone(), footer.index_offset)
        } else {
            let data = segment::file_name(self.shard, named.slot);
            let Some(length) = lengths.get(&*data) else {
                return Err(lost("the segment of a run is missing"));
            };
            self.adopted.insert(named.slot, (*length, 0));
            (data, *length)
        };
        let index = self.bytes_of(&file, footer.index_offset, at - footer.index_offset)?;
        let blocks = footer.rows(&index, end).map_err(|why| unusable(&file, why))?;
        if blocks.iter().any(|block| block.first < named.first || block.last > named.last) {
            return Err(lost("the run has other entries than the manifest says"));
        }
        let (first, last, length) = (named.first, named.last, named.length);
        Ok(Run { identity, file, data, first, last, length, blocks })
    }

    /// Entries that left the ring are not looked for there, whatever an older checkpoint says; they are below the
    /// checkpoint of their group, which is there.
    pub fn leave_moved(&mut self) -> Result<(), OpenError> {
        for (id, runs) in &self.runs.groups {
            let Some((_, last)) = runs.moved.last().copied() else { continue };
            let group = self.groups.get_mut(id).filter(|group| group.removed != 0 || group.index >= last);
            let Some(group) = group else {
                let sequence = self.runs.manifests.last().copied().unwrap_or(0);
                let name = manifest::file_name(self.shard, sequence);
                let what =
                    format!("entries up to {last} of group {id} are in runs, but its checkpoint is lost");
                return Err(damaged(&name, 0, what));
            };
            group.kept.retain(|(index, _)| !runs.has_moved(*index, *index));
        }
        Ok(())
    }
}

fn unusable(name: &FileName, why: Unusable) -> OpenError {
    match why {
        Unusable::Newer(version) => OpenError::Newer { file: name.to_string(), version },
        Unusable::Damaged(what, offset) => damaged(name, offset, what.into()),
    }
}
