//! Settings: their sections, defaults and bounds, and their conversion into the settings of each module.

mod bounded;
mod checks;
mod convert;
mod error;
mod load;
mod print;
mod sections;

pub use self::error::ConfigError;
pub use self::load::DEFAULTS;
pub use self::sections::{Config, StoreKind};
