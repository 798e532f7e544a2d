//! What streams through all of this?
//!
//! Bodies pass in frames and are not collected, unless somebody asks to see one first ([`Begun`]). A request's body is counted
//! against its cap and may be held back until the upstream asks for it; a response's body tells an observer what becomes of it.

mod arriving;
mod begun;
mod client;
mod content;
mod error;
mod leaving;
mod request;
mod response;
mod tape;
mod trailers;

pub use arriving::{Arriving, Asked};
pub use begun::{Begun, Unread};
pub use client::{ClientBody, Unwanted};
pub use content::{Change, Content, Pieces};
pub use error::{Error, GivenUp};
pub use leaving::Leaving;
pub use request::{Patience, RequestBody, Streaming, Upload, UploadState};
pub use response::{End, Observer, ResponseBody};
