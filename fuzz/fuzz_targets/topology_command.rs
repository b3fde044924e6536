//! Any bytes as commands of the metadata group, one behind the other, and as its checkpoint: a halt or refusal
//! changes nothing, and what is read back is the same and goes on the same.
#![no_main]

use fuzzing::Draws;
use libfuzzer_sys::fuzz_target;
use model::Limits;
use topology::{Answer, Command, Topology};

fn bytes_of(topology: &Topology) -> Vec<u8> {
    let mut bytes = Vec::new();
    topology.encode(&mut bytes);
    bytes
}

fn apply(topology: &mut Topology, limits: &Limits, command: &[u8]) {
    let before = bytes_of(topology);
    let mut twin = Topology::decode(&before, limits).expect("what was written is read");
    assert_eq!(bytes_of(&twin), before);
    let answer = topology.apply(command);
    assert_eq!(twin.apply(command), answer, "the one that was read back does the same");
    assert_eq!(bytes_of(&twin), bytes_of(topology));
    if matches!(answer, Err(_) | Ok(Answer::Refused(_))) {
        assert_eq!(bytes_of(topology), before, "nothing changed");
    }
    if let Ok(decoded) = Command::decode(command) {
        let again = decoded.to_bytes();
        assert_eq!(Command::decode(&again).map(|again| again.to_bytes()), Ok(again));
    }
}

fuzz_target!(|data: &[u8]| {
    let limits = Limits { queues_max: 5, bindings_max: 6, exchanges_max: 12, ..Limits::default() };
    let mut draws = Draws(data);
    let mut topology = match draws.flag() {
        false => Topology::new(&limits),
        true => Topology::decode(draws.piece(), &limits).unwrap_or_else(|_| Topology::new(&limits)),
    };
    topology.apply_command(Command::CreateGroups(2));
    while !draws.is_empty() {
        let mut command = vec![1];
        command.extend_from_slice(draws.piece());
        // Nobody creates that many, and each takes a while to write down.
        if !matches!(Command::decode(&command), Ok(Command::CreateGroups(9..))) {
            apply(&mut topology, &limits, &command);
        }
    }
});
