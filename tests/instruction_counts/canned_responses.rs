//! Canned DynamoDB responses, one per operation: the items of one user, and a table with the schema that the service expects.

/// Id of the stream that heartbeats renew.
pub const STREAM_ID: &str = "5f1d8a52-3c0f-4c58-9a31-0d6f2b7f6a11";

/// The response body for an operation. The operation is the last part of the header `x-amz-target`.
pub fn response_body(operation: &str) -> &'static str {
    match operation {
        "UpdateItem" => RENEWED,
        "TransactWriteItems" => r#"{"ConsumedCapacity":[{"CapacityUnits":4.0,"TableName":"user-streams"}]}"#,
        "Query" => PARTITION,
        "DescribeTable" => TABLE,
        "DescribeTimeToLive" => r#"{"TimeToLiveDescription":{"AttributeName":"ttl","TimeToLiveStatus":"ENABLED"}}"#,
        _ => "{}",
    }
}

/// Response to a heartbeat. `ReturnValues=ALL_OLD` returns the lease as it was before the heartbeat.
const RENEWED: &str = r#"{"Attributes":{"userName":{"S":"user-0000"},"record":{"S":"stream#5f1d8a52-3c0f-4c58-9a31-0d6f2b7f6a11"},"startedAt":{"N":"1790000000000"},"expiresAt":{"N":"1790000060000"},"ttl":{"N":"1790003660"},"deviceId":{"S":"device-01"},"contentId":{"S":"movie-007"}},"ConsumedCapacity":{"CapacityUnits":1.0,"TableName":"user-streams"}}"#;

/// A counter and two leases. The leases expire far in the future.
const PARTITION: &str = r#"{"ConsumedCapacity":{"CapacityUnits":1.0,"TableName":"user-streams"},"Count":3,"Items":[{"userName":{"S":"user-0000"},"record":{"S":"counter"},"revision":{"N":"7"},"streams":{"SS":["5f1d8a52-3c0f-4c58-9a31-0d6f2b7f6a11","9b2e4c1a-7d35-4f0e-8c66-3a1b5d9e2f40"]}},{"userName":{"S":"user-0000"},"record":{"S":"stream#5f1d8a52-3c0f-4c58-9a31-0d6f2b7f6a11"},"startedAt":{"N":"1790000000000"},"expiresAt":{"N":"4000000000000"},"ttl":{"N":"4000003600"},"deviceId":{"S":"device-01"},"contentId":{"S":"movie-007"}},{"userName":{"S":"user-0000"},"record":{"S":"stream#9b2e4c1a-7d35-4f0e-8c66-3a1b5d9e2f40"},"startedAt":{"N":"1790000001000"},"expiresAt":{"N":"4000000000000"},"ttl":{"N":"4000003600"},"deviceId":{"S":"device-02"},"contentId":{"S":"movie-008"}}],"ScannedCount":3}"#;

const TABLE: &str = r#"{"Table":{"AttributeDefinitions":[{"AttributeName":"userName","AttributeType":"S"},{"AttributeName":"record","AttributeType":"S"}],"KeySchema":[{"AttributeName":"userName","KeyType":"HASH"},{"AttributeName":"record","KeyType":"RANGE"}],"TableName":"user-streams","TableStatus":"ACTIVE"}}"#;
