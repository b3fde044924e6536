//! The log against an imagined disk that loses, tears and flips, and a model of what it promised.

mod cases;
mod model;
mod pieces;
#[cfg(planted)]
mod planted;
mod random;
mod reads;
mod virtual_disk;
