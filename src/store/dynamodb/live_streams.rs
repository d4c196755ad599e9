//! Counts all live streams with a scan of the table. Only for the embedded engine, because on DynamoDB a scan costs a read of
//! every item.

use async_trait::async_trait;
use aws_sdk_dynamodb::types::Select;

use super::errors::store_error;
use super::{DynamoStore, codec, expressions};
use crate::domain::lease::Timestamp;
use crate::store::{CountLiveStreams, Result};

/// Items per page. The engine executes no other request while it reads a page.
pub const PAGE_ITEMS: i32 = 200;

/// Counters have no expiry, so only leases match.
const LIVE: &str = "#expiresAt > :now AND attribute_not_exists(#endReason)";

#[async_trait]
impl CountLiveStreams for DynamoStore {
    async fn count_live_streams(&self, now: Timestamp) -> Result<u64> {
        let scan = self
            .client
            .scan()
            .table_name(&self.table)
            .consistent_read(true)
            .select(Select::Count)
            .limit(PAGE_ITEMS)
            .filter_expression(LIVE)
            .set_expression_attribute_names(expressions::names([LIVE]))
            .expression_attribute_values(":now", codec::timestamp(now));
        let mut live = 0;
        let mut from = None;
        loop {
            let page = scan.clone().set_exclusive_start_key(from).send().await.map_err(store_error)?;
            live += u64::try_from(page.count).unwrap_or(0);
            from = page.last_evaluated_key;
            if from.is_none() {
                return Ok(live);
            }
        }
    }
}
