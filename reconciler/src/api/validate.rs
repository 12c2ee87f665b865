//! shim
use super::kinds::Kind;
use super::status::Cause;
use serde_json::Value;
/// shim
pub fn create(_: &Kind, _: &Value) -> Vec<Cause> {
    Vec::new()
}
/// shim
pub fn update(_: &Kind, _: &Value, _: &Value) -> Vec<Cause> {
    Vec::new()
}
