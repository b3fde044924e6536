//! A broker driven directly: requests in, events out, over a disk in memory that may be held up.

mod compaction;
mod disk;
mod groups;
mod keeping;
mod lanes;
mod node;
mod parking;
mod publishing;
mod queues;
mod restart;
mod streams;
mod terms;
mod windows;
