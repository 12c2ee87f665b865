//! JSON patch: operations one after the other, with limits on their number and on what they may build.

use json_patch::PatchOperation;
use json_patch::jsonptr::Pointer;
use serde_json::Value;

use super::{Status, go_mismatch, malformed, rejected};

/// Operations in one patch; that of kube-apiserver.
const OPERATIONS: usize = 10_000;

/// Bytes of JSON that all `copy` operations of a patch may make; the limit of a request's body.
const COPIED: usize = 3 << 20;

/// How deep a patch may nest a value: `serde_json` reads 127 levels, and what is stored must be readable.
const DEPTH: usize = 100;

pub(super) fn apply(target: &Value, patch: Value) -> Result<Value, Status> {
    let Value::Array(operations) = patch else {
        return Err(malformed(&go_mismatch(&patch, "[]handlers.jsonPatchOp")));
    };
    if operations.len() > OPERATIONS {
        return Err(Status::new(
            413,
            "RequestEntityTooLarge",
            format!(
                "Request entity too large: The allowed maximum operations in a JSON patch is {OPERATIONS}, got {}",
                operations.len()
            ),
        ));
    }
    let mut result = target.clone();
    let mut copied = 0;
    for operation in operations {
        if !operation.is_object() {
            return Err(malformed(&go_mismatch(&operation, "handlers.jsonPatchOp")));
        }
        let operation: PatchOperation =
            serde_json::from_value(operation).map_err(|_| rejected())?;
        if let PatchOperation::Copy(copy) = &operation {
            copied += copy.from.resolve(&result).map_or(0, size);
        }
        if copied > COPIED || depth(&operation, &result) > DEPTH {
            return Err(rejected());
        }
        // What a failed patch leaves is thrown away, so it needs no undoing.
        json_patch::patch_unsafe(&mut result, &[operation]).map_err(|_| rejected())?;
    }
    Ok(result)
}

/// How deep the value lies that an operation writes, its own depth included.
fn depth(operation: &PatchOperation, document: &Value) -> usize {
    let moved = |from: &Pointer| from.resolve(document).map_or(0, nesting);
    let below = match operation {
        PatchOperation::Add(add) => nesting(&add.value),
        PatchOperation::Replace(replace) => nesting(&replace.value),
        // Not deeper than it was; a walk through all of it is saved.
        PatchOperation::Move(change) if change.path.count() <= change.from.count() => return 0,
        PatchOperation::Move(change) => moved(&change.from),
        PatchOperation::Copy(copy) => moved(&copy.from),
        PatchOperation::Remove(_) | PatchOperation::Test(_) => return 0,
    };
    operation.path().count() + below
}

/// Levels of lists and objects. Documents are at most [`DEPTH`] deep or as deep as they were read, so the stack does.
fn nesting(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(nesting).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(nesting).max().unwrap_or(0),
        _ => 0,
    }
}

/// Bytes of JSON, about.
fn size(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len() + 2,
        Value::Array(items) => 2 + items.iter().map(|item| size(item) + 1).sum::<usize>(),
        Value::Object(map) => {
            let entries = map.iter().map(|(key, value)| key.len() + 4 + size(value));
            2 + entries.sum::<usize>()
        }
        _ => 8,
    }
}
