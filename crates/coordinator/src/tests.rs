//! What members see, transition by transition. Schedules nobody thought of are in [`schedule`].

mod fixture;
mod leaving;
mod questions;
mod rebalancing;
mod schedule;
mod statics;
