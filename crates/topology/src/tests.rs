//! What clients see of the topology, rule by rule. The sequences nobody thought of are in [`reference`].

mod fixture;
mod lifetime;
mod reference;
mod routing;
mod rules;
mod topic_reference;
mod topics;
