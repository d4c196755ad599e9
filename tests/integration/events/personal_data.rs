//! Users and devices in events.

use serde_json::{Value, json};
use stream_manager::events::settings::Identities;

use super::{KEY, Recording};
use crate::test_app::TestApp;

/// The events of a start, a restart of its device, an eviction and an erasure.
async fn events(identities: Identities) -> Vec<Value> {
    let recording = Recording::start(TestApp::default(), identities).await;
    for _ in 0..2 {
        recording.server.start_stream("ann", json!({"deviceId": "ann", "deviceName": "TV"})).await;
    }
    recording.server.json("POST", "/v1/users/ann/evictions", json!({})).await;
    recording.server.call("DELETE", "/v1/users/ann").await;
    let events = recording.finish();
    assert_eq!(events.len(), 5, "{events:?}");
    events
}

#[tokio::test]
async fn users_and_devices_are_hashed_with_the_key() {
    for event in events(Identities::Hashed(KEY.into())).await {
        let hash = json!("xhuZBSfG2JkkhGGekNHjitZ_3-fTmA-sz5n35Hfji68");
        assert_eq!(event["subject"], hash);
        assert!(event["data"].get("deviceId").is_none_or(|device| *device != hash && device.is_string()));
        assert!(!event.to_string().contains("ann"), "{event}");
    }
}

#[tokio::test]
async fn users_and_devices_can_be_omitted() {
    for event in events(Identities::Omitted).await {
        assert_eq!((event.get("subject"), event["data"].get("deviceId")), (None, None));
        assert!(!event.to_string().contains("ann"), "{event}");
    }
}
