//! `openapi`: prints the OpenAPI document.

use std::process::ExitCode;

use anyhow::Result;
use stream_manager::http::api::openapi::openapi_document;

use super::output::print;

pub fn run() -> Result<ExitCode> {
    print(&format!("{}\n", openapi_document()?.json))?;
    Ok(ExitCode::SUCCESS)
}
