//! The configuration as users write it: files, variables and flags, and what a mistake gets.

use super::*;

fn read(text: &str) -> Result<Config, String> {
    Config::read("waystation.toml", text, [], Flags::default())
}

fn with_environment(text: &str, variables: &[(&str, &str)]) -> Result<Config, String> {
    let variables = variables.iter().map(|(key, value)| (key.to_string(), value.to_string()));
    Config::read("waystation.toml", text, variables, Flags::default())
}

fn refusal(text: &str) -> String {
    read(text).expect_err("refused")
}

const HASH: &str = "pbkdf2-sha256$1000$00$00";

#[test]
fn nothing_said_means_the_defaults() {
    let config = read("").expect("defaults");
    assert_eq!(config, Config::default());
    let urls: Vec<String> = config.listen.iter().map(Listen::to_string).collect();
    assert_eq!(urls, ["amqp://127.0.0.1:5672", "kafka://127.0.0.1:9092", "http://127.0.0.1:15672"]);
    assert!(config.users[0].loopback_only);
}

#[test]
fn the_later_source_wins() {
    let file = "data_dir = \"a\"\nshards = 2\ngroups = 3\n[limits]\nheartbeat_s = 5\n";
    let variables = [
        ("WAYSTATION__SHARDS".to_owned(), "4".to_owned()),
        ("WAYSTATION__DATA_DIR".to_owned(), "b".to_owned()),
        ("WAYSTATION__LIMITS__HEARTBEAT_S".to_owned(), "7".to_owned()),
        ("PATH".to_owned(), "ignored".to_owned()),
    ];
    let flags = Flags { data_dir: Some("c".into()), ..Flags::default() };
    let config = Config::read("f", file, variables, flags).expect("valid");
    assert_eq!((config.shards, config.groups, config.limits.heartbeat_s), (Some(4), Some(3), 7));
    assert_eq!(config.data_dir, PathBuf::from("c"));
    assert_eq!(config.limits.channels_max, Limits::default().channels_max);
}

#[test]
fn the_environment_takes_addresses_with_commas_or_as_a_list() {
    let urls = ["amqp://127.0.0.1:1, http://127.0.0.1:2", "[\"amqp://127.0.0.1:1\", \"http://127.0.0.1:2\"]"];
    for text in urls {
        let config = with_environment("", &[("WAYSTATION__LISTEN", text)]).expect("valid");
        assert_eq!(config.listen.len(), 2, "{text}");
    }
}

#[test]
fn an_unknown_key_is_told_with_its_place_and_the_nearest_known_one() {
    assert!(refusal("lisen = []").contains("waystation.toml: unknown key 'lisen'; did you mean 'listen'?"));
    let nested = refusal("[limits]\nmesage_bytes_max = 5");
    assert!(nested.contains("'limits.mesage_bytes_max'; did you mean 'message_bytes_max'?"), "{nested}");
    let misplaced = refusal("channels_max = 5");
    assert!(misplaced.contains("did you mean 'limits.channels_max'?"), "{misplaced}");
    let user = refusal("[[users]]\nname = \"a\"\npasswort_hash = \"b\"");
    assert!(user.contains("'users.passwort_hash'; did you mean 'password_hash'?"), "{user}");
    let variable = with_environment("", &[("WAYSTATION__SHARTS", "1")]).expect_err("refused");
    assert!(variable.contains("WAYSTATION__SHARTS") && variable.contains("'shards'"), "{variable}");
}

#[test]
fn a_value_of_the_wrong_kind_is_told_with_its_key_its_line_and_what_was_expected() {
    let many = "a whole number, 0 or more";
    let users = "[[users]] with name and password_hash";
    for (line, given, expected) in [
        ("shards = \"many\"", "\"many\"", "a whole number from 0 to 65535"),
        ("shards = 65536", "65536", "a whole number from 0 to 65535"),
        ("groups = true", "true", "a whole number from 0 to 4294967295"),
        ("ring_bytes_max = -5", "-5", many),
        ("ring_bytes_max = 99999999999999999999", "99999999999999999999", many),
        ("limits = { message_bytes_max = 1.5 }", "1.5", many),
        ("limits = { nesting_max = 300 }", "300", "a whole number from 0 to 255"),
        ("limits = 5", "5", "[limits] with keys below it"),
        ("listen = \"amqp://127.0.0.1:1\"", "amqp://127.0.0.1:1", "a list of addresses, for example ["),
        ("log_format = \"xml\"", "xml", "`text` or `json`"),
        ("users = 1", "1", users),
        ("users = [1]", "1", users),
    ] {
        let refusal = refusal(&format!("data_dir = \"a\"\n{line}"));
        for part in ["waystation.toml", "line 2", line, given, expected] {
            assert!(refusal.contains(part), "{part} in {refusal}");
        }
        let of_rust = ["u8", "u16", "u32", "u64", "usize", "i128", "sequence", "struct", "Settings"];
        assert!(!of_rust.iter().any(|name| refusal.contains(name)), "{refusal}");
    }
}

#[test]
fn a_variable_of_the_wrong_kind_is_told_with_its_name_and_what_was_expected() {
    let refusal = |name: &str, value| with_environment("", &[(name, value)]).expect_err("refused");
    let shards = refusal("WAYSTATION__SHARDS", "many");
    assert_eq!(
        shards,
        "environment variable WAYSTATION__SHARDS: invalid type: string \"many\", expected a whole number from 0 to \
         65535"
    );
    let limit = refusal("WAYSTATION__LIMITS__MESSAGE_BYTES_MAX", "-1");
    assert!(
        limit.contains("MESSAGE_BYTES_MAX: invalid value: integer `-1`, expected a whole number"),
        "{limit}"
    );
}

#[test]
fn senseless_sizes_are_refused_by_name() {
    for (text, name) in [
        ("shards = 0", "shards is 0; it must be 1 to 256"),
        ("groups = 65537", "groups is 65537; it must be 1 to 65536"),
        ("segment_bytes = 5000", "segment_bytes"),
        ("free_bytes_min = 67108864", "free_bytes_min is 67108864; it must be more than 67108864"),
        ("segment_bytes = 4194304\nfree_bytes_min = 12582912", "free_bytes_min"),
        ("[limits]\nconnections_max = 0", "limits.connections_max"),
        ("listen = []", "nothing to listen on"),
        ("listen = [\"amqp://127.0.0.1:1\", \"http://127.0.0.1:1\"]", "the same address"),
        ("listen = [\"mqtt://127.0.0.1:1\"]", "unknown protocol 'mqtt'"),
        ("listen = [\"amqp://somewhere:1\"]", "not an IP address"),
        ("listen = [\"kafka://somewhere:1\"]", "kafka://127.0.0.1:9092"),
    ] {
        let refusal = refusal(text);
        assert!(refusal.contains(name), "{text}: {refusal}");
    }
}

#[test]
fn what_kafkas_clients_are_told_is_a_host_and_a_port() {
    for told in ["broker.example.org:9092", "10.0.0.7:1", "[2001:db8::1]:19092"] {
        let config = read(&format!("kafka_advertised = \"{told}\"")).expect("valid");
        assert_eq!(config.kafka_advertised.as_deref(), Some(told));
    }
    for told in
        ["", "broker", "broker:", ":9092", "broker:0", "broker:70000", "kafka://broker:9092", "::1:9092"]
    {
        let refusal = refusal(&format!("kafka_advertised = \"{told}\""));
        assert!(refusal.contains(&format!("kafka_advertised is '{told}'")), "{told}: {refusal}");
    }
}

#[test]
fn guest_alone_is_never_reachable_from_other_machines() {
    let open = "listen = [\"amqp://0.0.0.0:5672\"]";
    let refusal = refusal(open);
    assert!(refusal.contains("amqp://0.0.0.0:5672") && refusal.contains("hash-password"), "{refusal}");
    let config =
        read(&format!("{open}\n[[users]]\nname = \"app\"\npassword_hash = \"{HASH}\"")).expect("valid");
    assert_eq!(config.users.len(), 1, "guest is gone");
}

#[test]
fn users_need_a_name_of_their_own_and_a_hash() {
    let user = |name: &str, hash: &str| format!("[[users]]\nname = \"{name}\"\npassword_hash = \"{hash}\"\n");
    assert!(refusal(&user("a", "secret")).contains("hash-password"));
    assert!(refusal(&user("", HASH)).contains("empty name"));
    assert!(refusal(&(user("a", HASH) + &user("a", HASH))).contains("twice"));
}

#[test]
fn free_bytes_need_be_no_more_than_the_segments_ask_for() {
    for text in ["free_bytes_min = 67108865", "segment_bytes = 4194304\nfree_bytes_min = 12582913"] {
        assert!(read(text).is_ok(), "{text}");
    }
}
