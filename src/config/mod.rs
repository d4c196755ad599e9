//! The settings: sections, defaults, bounds, and the conversion into the settings types of the other modules.

mod bounded;
mod checks;
mod convert;
mod cors;
mod environment;
mod error;
mod events;
mod grants;
mod load;
mod print;
mod rules;
mod sections;

pub use self::error::ConfigError;
pub use self::load::DEFAULTS;
pub use self::sections::{Config, StoreKind};
