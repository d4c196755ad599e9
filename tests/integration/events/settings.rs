//! The settings of events.

use crate::settings::load;

const SECRET: &str = "secret secret secret secret secret";

#[test]
fn events_are_off_by_default() {
    assert!(load(&[]).unwrap().events().is_none());
    assert!(load(&[("__EVENTS__HASH_KEY", SECRET)]).unwrap().events().is_none(), "with a key");
}

#[test]
fn event_errors_name_the_key_and_hide_secrets() {
    let (stdout, key) = (("SINK", "stdout"), ("HASH_KEY", SECRET));
    for (settings, parts) in [
        (&[stdout][..], ["events.user = \"hashed\"", "needs events.hash_key"]),
        (&[stdout, ("HASH_KEY", "secret secret")], ["events.hash_key = …", "at least 32 bytes"]),
        (&[stdout, key, ("USER", "plain")], ["events.hash_key = …", "is for events.user"]),
        (&[("SINK", "kafka")], ["events.sink = \"kafka\"", "`off`, `stdout`, `file`"]),
        (&[("USER", "name")], ["events.user = \"name\"", "`hashed`, `plain`, `none`"]),
        (&[("KEEP_DAYS", "0")], ["events.keep_days = 0", "1 to 3650"]),
    ] {
        let settings: Vec<_> = settings.iter().map(|(key, value)| (format!("__EVENTS__{key}"), *value)).collect();
        let settings: Vec<_> = settings.iter().map(|(key, value)| (key.as_str(), *value)).collect();
        let message = load(&settings).unwrap_err();
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
        assert!(!message.contains("secret secret") && !message.contains('\n'), "{message}");
    }
}

#[test]
fn the_hash_key_differs_from_all_other_secrets() {
    let tokens = [
        ("__AUTH__MODE", "jwt"),
        ("__AUTH__ISSUER", "issuer"),
        ("__AUTH__AUDIENCE", "streams"),
        ("__AUTH__HS256_SECRET", SECRET),
    ];
    let grants = [("__GRANTS__ALGORITHM", "HS256"), ("__GRANTS__SECRET", SECRET)];
    let subjects = [("__GRANTS__SUBJECT", "hashed"), ("__GRANTS__SUBJECT_KEY", SECRET)];
    for others in [&tokens[..], &grants, &subjects] {
        let settings: Vec<_> = others.iter().copied().chain([("__EVENTS__HASH_KEY", SECRET)]).collect();
        let message = load(&settings).unwrap_err();
        assert!(message.contains("events.hash_key = …: must differ"), "{message}");
        assert!(load(others).is_ok());
    }
}

#[test]
fn the_hash_key_is_never_printed() {
    let printed = load(&[("__EVENTS__HASH_KEY", SECRET)]).unwrap().to_toml();
    assert!(printed.contains("# hash_key is set, and not shown") && !printed.contains(SECRET), "{printed}");
}
