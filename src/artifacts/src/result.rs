//! Results that executors leave in the store of their attempt when they can't reach their agent.

use crate::executor::Refusal;
use crate::store::{Store, Stores};
use crate::{Error, executor};
use argosy_executor::artifacts::{STORES, Ticket};
use argosy_executor::protocol::ResultObject;
use argosy_model::{Fence, result_key};
use futures::TryStreamExt;

/// Where an attempt may leave its result; nothing if its location is no store.
pub(crate) async fn place(
    stores: &Stores,
    fence: &Fence,
    ticket: &Ticket,
) -> Result<Option<ResultObject>, Refusal> {
    let Some((store, key)) = open(stores, fence, ticket).await? else { return Ok(None) };
    let request = store.sign_put(&key).await?;
    let (renew_after_ms, outage_ms) = (stores.limits.url_life_ms / 2, stores.limits.result_after_ms);
    Ok(Some(ResultObject { key, request, renew_after_ms, outage_ms }))
}

/// Reads what an attempt left: the key, and so many bytes.
///
/// # Errors
/// When it is not there, or of another size; when the store does not answer.
pub async fn read_result(
    stores: &Stores,
    fence: &Fence,
    ticket: &Ticket,
    bytes: u64,
) -> Result<(String, Vec<u8>), Refusal> {
    let (store, key) = opened(stores, fence, ticket).await?;
    let found = store.head(&key).await?.ok_or(Error::NotFound)?;
    if found.size != bytes {
        let size = found.size;
        return Err(executor::refused(&format!("the object has {size} bytes, and {bytes} were told")));
    }
    let parts: Vec<bytes::Bytes> = store.read(&key, 0..bytes).await?.try_collect().await?;
    Ok((key, parts.concat()))
}

/// Deletes it; what is not there is deleted.
///
/// # Errors
/// When the store refuses.
pub async fn delete_result(stores: &Stores, fence: &Fence, ticket: &Ticket) -> Result<(), Refusal> {
    let (store, key) = opened(stores, fence, ticket).await?;
    Ok(store.delete(&key).await?)
}

async fn opened(stores: &Stores, fence: &Fence, ticket: &Ticket) -> Result<(Store, String), Refusal> {
    let opened = open(stores, fence, ticket).await?;
    opened.ok_or_else(|| executor::refused("the attempt's location is no store"))
}

async fn open(stores: &Stores, fence: &Fence, ticket: &Ticket) -> Result<Option<(Store, String)>, Error> {
    if !STORES.iter().any(|kind| ticket.archive_location.contains_key(*kind)) {
        return Ok(None);
    }
    let store = stores.open(&ticket.namespace, &ticket.archive_location).await?;
    Ok(Some((store, result_key(&ticket.prefix, fence))))
}
