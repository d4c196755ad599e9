//! The setting `limits.rules`: in a file, in an environment variable, its checks, and how `check-config` prints it.

use stream_manager::domain::rules::{LimitMode, Rule};

use crate::rules::{UHD, rule};
use crate::settings::{load, load_text};

const FILE: &str = r#"
[[limits.rules]]
name = "one UHD stream"
max = 1
labels = { quality = "uhd" }

[[limits.rules]]
name = "two per \"Kanal\" \\ Zoë"
max = 2
per = "channel"
"#;

fn expected() -> [Rule; 2] {
    [rule("one UHD stream", 1, UHD, None), rule("two per \"Kanal\" \\ Zoë", 2, &[], Some("channel"))]
}

fn with_rules(rules: &str) -> String {
    match load_text(&format!("[limits]\nrules = {rules}\n")) {
        Ok(config) => panic!("accepted: {:?}", config.limits.rules),
        Err(message) => message,
    }
}

#[test]
fn rules_are_tables_of_the_file() {
    let config = load_text(FILE).unwrap();
    assert_eq!(config.policy().rules[..], expected());
    assert_eq!(load(&[]).unwrap().policy().rules[..], []);
}

#[test]
fn printed_rules_can_be_loaded_again() {
    let printed = load_text(FILE).unwrap().to_toml();
    let line = r#"rules = [{ labels = { quality = "uhd" }, max = 1, mode = "enforce", name = "one UHD stream" }, "#;
    assert!(printed.contains(line), "{printed}");
    assert_eq!(load_text(&printed).unwrap().policy().rules[..], expected());
}

#[test]
fn environment_variable_contains_json() {
    let json = r#"[{"name": "one UHD stream", "max": 1, "labels": {"quality": "uhd"}},
        {"name": "two per \"Kanal\" \\ Zoë", "max": 2, "per": "channel"}]"#;
    assert_eq!(load(&[("__LIMITS__RULES", json)]).unwrap().policy().rules[..], expected());
    for (value, part) in [
        ("one UHD stream", "limits.rules = \"one UHD stream\": must be a list of rules; in an environment variable"),
        ("{}", "limits.rules = {}: must be a list of rules"),
        ("[\"a\"]", "limits.rules[0] = \"a\": must be a table with name, max, and labels or per"),
        (r#"[{"name": "a", "max": 51, "per": "x"}]"#, "limits.rules[0].max = 51: must be 0 to 50"),
    ] {
        let message = load(&[("__LIMITS__RULES", value)]).unwrap_err();
        assert!(message.contains(part), "{message}");
    }
    assert!(load(&[("__LIMITS__RULES__0__NAME", "a")]).unwrap_err().contains("limits.rules"));
}

#[test]
fn invalid_rules_are_refused_with_their_position() {
    for (rules, part) in [
        (r#"[{ max = 1, per = "x" }]"#, "limits.rules[0]"),
        (r#"[{ name = "a", per = "x" }]"#, "missing field `max`"),
        (r#"[{ name = "", max = 1, per = "x" }]"#, "limits.rules[0].name = \"\": must not be empty"),
        (r#"[{ name = "a\tb", max = 1, per = "x" }]"#, "limits.rules[0].name = \"a\\tb\": must not contain control"),
        (r#"[{ name = "a", max = -1, per = "x" }]"#, "limits.rules[0].max = -1: must be a whole number"),
        (r#"[{ name = "a", max = 1 }]"#, "limits.rules[0] = \"a\": must have labels or per"),
        (r#"[{ name = "a", max = 1, labels = {} }]"#, "limits.rules[0] = \"a\": must have labels or per"),
        (r#"[{ name = "a", max = 1, label = { x = "y" } }]"#, "unknown field `label`"),
        (r#"[{ name = "a", max = 1, labels = { X = "y" } }]"#, "must be 1 to 32 characters"),
        (r#"[{ name = "a", max = 1, labels = { x = 4 } }]"#, "must be a string"),
        (r#"[{ name = "a", max = 1, labels = "x" }]"#, "limits.rules[0].labels = \"x\": must be a table"),
        (r#"[{ name = "a", max = 1, per = "X" }]"#, "limits.rules[0].per = \"X\": must be 1 to 32 characters"),
        (
            r#"[{ name = "Zoë", max = 1, per = "x" }, { name = "Zoe\u0308", max = 2, per = "x" }]"#,
            "limits.rules[1].name = \"Zoë\": must not be the name of another rule",
        ),
    ] {
        let message = with_rules(rules);
        assert!(message.contains(part) && !message.contains('\n'), "{rules}: {message}");
    }
}

#[test]
fn rules_have_their_own_mode_or_that_of_the_section() {
    let rules = r#"[{ name = "a", max = 1, per = "x" }, { name = "b", max = 1, per = "x", mode = "observe" },
        { name = "c", max = 1, per = "x", mode = "enforce" }]"#
        .replace('\n', "");
    for mode in [LimitMode::Enforce, LimitMode::Observe] {
        let name = if mode == LimitMode::Observe { "observe" } else { "enforce" };
        let config = load_text(&format!("[limits]\nmode = \"{name}\"\nrules = {rules}\n")).unwrap();
        let printed = config.to_toml();
        assert!(printed.contains(&format!("mode = \"{name}\"\n")), "{printed}");
        assert!(printed.contains(&format!("mode = \"{name}\", name = \"a\"")), "{printed}");
        for config in [config, load_text(&printed).unwrap()] {
            let policy = config.policy();
            assert_eq!((policy.limit_mode, policy.hard_limit.get()), (mode, 50));
            let modes: Vec<LimitMode> = policy.rules.iter().map(|rule| rule.mode).collect();
            assert_eq!(modes, [mode, LimitMode::Observe, LimitMode::Enforce]);
        }
    }
}

#[test]
fn modes_can_be_set_in_the_environment() {
    let rules = r#"[{"name": "a", "max": 1, "per": "x", "mode": "enforce"}]"#;
    let policy = load(&[("__LIMITS__MODE", "observe"), ("__LIMITS__RULES", rules)]).unwrap().policy();
    assert_eq!((policy.limit_mode, policy.rules[0].mode), (LimitMode::Observe, LimitMode::Enforce));
    for (variable, value, key) in [
        ("__LIMITS__MODE", "off", "limits.mode"),
        ("__LIMITS__RULES", r#"[{"name": "a", "max": 1, "per": "x", "mode": "off"}]"#, "limits.rules[0].mode"),
    ] {
        let message = load(&[(variable, value)]).unwrap_err();
        assert!(message.starts_with(key) && message.contains("`enforce` or `observe`"), "{message}");
    }
}

#[test]
fn number_and_length_of_rules_are_bounded() {
    let rules = |count: usize| {
        let rules = (0..count).map(|n| format!("{{ name = \"{n}\", max = 1, per = \"x\" }}"));
        format!("[{}]", rules.collect::<Vec<_>>().join(", "))
    };
    assert!(load_text(&format!("[limits]\nrules = {}\n", rules(16))).is_ok());
    assert!(with_rules(&rules(17)).contains("limits.rules = 17 rules: must have at most 16"));
    let named = |length: usize| format!("[{{ name = \"{}\", max = 1, per = \"x\" }}]", "é".repeat(length));
    assert!(load_text(&format!("[limits]\nrules = {}\n", named(64))).is_ok());
    assert!(with_rules(&named(65)).contains("must be at most 64 characters, has 65"));
    let labels: Vec<String> = (0..9).map(|n| format!("l{n} = \"x\"")).collect();
    let many = format!("[{{ name = \"a\", max = 1, labels = {{ {} }} }}]", labels.join(", "));
    assert!(with_rules(&many).contains("limits.rules[0].labels"), "{many}");
}
