//! The SDK's user agent, put together once and not for each request. It says what the SDK says, and changes nothing else.

use std::sync::OnceLock;

use aws_runtime::user_agent::UserAgentInterceptor;
use aws_sdk_dynamodb::config::interceptors::{
    BeforeSerializationInterceptorContextRef, BeforeTransmitInterceptorContextMut,
    BeforeTransmitInterceptorContextRef,
};
use aws_sdk_dynamodb::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::{DisableInterceptor, disable_interceptor};

const HEADERS: [&str; 2] = ["user-agent", "x-amz-user-agent"];

/// Keeps the headers of a client's first request for all that follow: what they tell is the same for the client's life.
#[derive(Debug, Default)]
pub struct SameUserAgent(OnceLock<[String; 2]>);

impl Intercept for SameUserAgent {
    fn name(&self) -> &'static str {
        "SameUserAgent"
    }

    fn read_before_execution(
        &self,
        _: &BeforeSerializationInterceptorContextRef<'_>,
        state: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if self.0.get().is_some() {
            state.interceptor_state().store_put(disable_interceptor::<UserAgentInterceptor>("its headers are known"));
        }
        Ok(())
    }

    fn modify_before_signing(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        state: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        // Not before the SDK's own was turned off for this request: it appends.
        if state.load::<DisableInterceptor<UserAgentInterceptor>>().is_some()
            && let Some(known) = self.0.get()
        {
            let headers = context.request_mut().headers_mut();
            for (name, value) in HEADERS.into_iter().zip(known) {
                headers.insert(name, value.clone());
            }
        }
        Ok(())
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if self.0.get().is_none() {
            let headers = context.request().headers();
            if let [Some(short), Some(long)] = HEADERS.map(|name| headers.get(name)) {
                let _ = self.0.set([short.to_owned(), long.to_owned()]);
            }
        }
        Ok(())
    }
}
