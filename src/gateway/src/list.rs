//! Lists of workflows, and what narrows them.

use argosy_model::WorkflowKey;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use crate::envelope::{Answer, ApiError, ApiResult, Code};
use crate::fields::Fields;
use crate::http::Params;
use crate::selector::{FieldSelector, LabelSelector};
use crate::{App, Archived, Cell, Consistency, Summary, View};

/// A view as fresh as the request asks for.
pub(crate) async fn view<C: Cell>(app: &App<C>, params: &Params) -> Result<C::View, ApiError> {
    let consistency = match params.get("consistency") {
        None | Some("linearizable") => Consistency::Linearizable,
        Some("stale") => Consistency::Stale,
        Some(other) => {
            let message = format!("consistency is {other:?}: it has to be linearizable or stale");
            return Err(ApiError::new(Code::InvalidArgument, message));
        }
    };
    Ok(app.cell.read(consistency).await?)
}

/// The workflows that a list or watch is about.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scope {
    pub namespace: Option<String>,
    labels: LabelSelector,
    fields: FieldSelector,
    name: Option<NameFilter>,
    created_after_ms: Option<i64>,
    finished_before_ms: Option<i64>,
}

/// How Argo's `nameFilter` changes the meaning of the field selector's name.
#[derive(Clone, Debug)]
enum NameFilter {
    Prefix(String),
    Contains(String),
}

fn time(params: &Params, name: &str) -> Result<Option<i64>, ApiError> {
    let parse = |text: &str| {
        text.parse::<jiff::Timestamp>().map(jiff::Timestamp::as_millisecond).map_err(|_| {
            ApiError::undecodable(format!(
                "query parameter {name} is {text:?}: it has to be an RFC 3339 time"
            ))
        })
    };
    params.get(name).map(parse).transpose()
}

impl Scope {
    pub fn parse(namespace: Option<String>, params: &Params) -> Result<Self, ApiError> {
        let wrong = |error: crate::selector::Invalid| ApiError::new(Code::InvalidArgument, error.to_string());
        let labels = params.get("listOptions.labelSelector").unwrap_or_default();
        let fields = params.get("listOptions.fieldSelector").unwrap_or_default();
        let mut fields = FieldSelector::parse(fields).map_err(wrong)?;
        let wanted = fields.name().map(str::to_owned);
        let name = match (params.get("nameFilter"), wanted) {
            (None | Some("Exact"), _) | (Some("Prefix" | "Contains"), None) => None,
            (Some("Prefix"), Some(name)) => Some(NameFilter::Prefix(name)),
            (Some("Contains"), Some(name)) => Some(NameFilter::Contains(name)),
            (Some(other), _) => {
                let message = format!("nameFilter is {other:?}: it has to be Exact, Prefix or Contains");
                return Err(ApiError::new(Code::InvalidArgument, message));
            }
        };
        if name.is_some() {
            fields = FieldSelector::default();
        }
        Ok(Self {
            namespace: namespace.filter(|namespace| !namespace.is_empty()),
            labels: LabelSelector::parse(labels).map_err(wrong)?,
            fields,
            name,
            created_after_ms: time(params, "createdAfter")?,
            finished_before_ms: time(params, "finishedBefore")?,
        })
    }

    /// The one name that can match, if the selector names one.
    pub fn name(&self) -> Option<&str> {
        self.fields.name()
    }

    fn matches_key(&self, key: &WorkflowKey) -> bool {
        let namespace = self.namespace.as_ref().is_none_or(|namespace| *namespace == key.namespace);
        let name = match &self.name {
            None => true,
            Some(NameFilter::Prefix(prefix)) => key.name.starts_with(prefix.as_str()),
            Some(NameFilter::Contains(part)) => key.name.contains(part.as_str()),
        };
        namespace && name && self.fields.matches(&key.namespace, &key.name)
    }

    /// The summary of the workflow if it is there and in scope.
    pub fn find<V: View>(&self, view: &V, key: &WorkflowKey) -> Option<Summary> {
        let summary = if self.matches_key(key) { view.summary(key)? } else { return None };
        self.accepts(summary)
    }

    /// The same of an archived one.
    pub fn find_archived<V: View>(&self, view: &V, archived: &Archived) -> Option<Summary> {
        if !self.matches_key(&archived.key) {
            return None;
        }
        self.accepts(view.archived_summary(archived, !self.labels.is_empty())?)
    }

    fn accepts(&self, summary: Summary) -> Option<Summary> {
        let created = self.created_after_ms.is_none_or(|bound| summary.created_at_ms > bound);
        let finished =
            self.finished_before_ms.is_none_or(|bound| summary.finished_at_ms.is_some_and(|at| at < bound));
        (created && finished && self.labels.matches(&summary.labels)).then_some(summary)
    }
}

/// One of a list.
enum Item {
    Live(WorkflowKey),
    Archived(Archived),
}

/// Argo's order: the unfinished first, the newest of them first; then the finished, the latest first. To the second, as
/// Argo's times are; equal ones in the order of acceptance.
fn argos_order(summary: &Summary) -> (bool, i64) {
    match summary.finished_at_ms {
        None => (false, -summary.created_at_ms.div_euclid(1000)),
        Some(at) => (true, -at.div_euclid(1000)),
    }
}

pub(crate) async fn list_all<C: Cell>(State(app): State<App<C>>, params: Params) -> ApiResult {
    answer(&app, None, &params).await
}

pub(crate) async fn list<C: Cell>(
    State(app): State<App<C>>,
    Path(namespace): Path<String>,
    params: Params,
) -> ApiResult {
    answer(&app, Some(namespace), &params).await
}

async fn answer<C: Cell>(app: &App<C>, namespace: Option<String>, params: &Params) -> ApiResult {
    let scope = Scope::parse(namespace, params)?;
    let fields = Fields::parse(params.get("fields").unwrap_or_default());
    let wanted = params
        .number("listOptions.limit")?
        .map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let limit = wanted.min(app.limits.list_items_max);
    let offset = params
        .number("listOptions.continue")?
        .map_or(0, |offset| usize::try_from(offset).unwrap_or(usize::MAX));
    let view = view(app, params).await?;

    let mut found: Vec<(Item, Summary)> = Vec::new();
    for key in view.workflow_keys(scope.namespace.as_deref()) {
        if let Some(summary) = scope.find(&view, &key) {
            found.push((Item::Live(key), summary));
        }
    }
    // Live and archived together, as Argo's interface shows them; a workflow is in one of the two.
    let archived = if app.archive { view.archived_all(scope.namespace.as_deref()) } else { Vec::new() };
    for archived in archived {
        if let Some(summary) = scope.find_archived(&view, &archived) {
            found.push((Item::Archived(archived), summary));
        }
    }
    found.sort_by_key(|(_, summary)| argos_order(summary));
    let shown = |(item, _): &(Item, Summary)| match item {
        Item::Live(key) => view.workflow_json(key),
        Item::Archived(archived) => view.archived_json(archived),
    };
    let page: Vec<Value> = found.iter().skip(offset).take(limit).filter_map(shown).collect();
    let rest = found.len().saturating_sub(offset.saturating_add(page.len()));

    let mut metadata = json!({"resourceVersion": view.sequence().to_string()});
    if rest > 0 {
        if wanted > limit {
            app.metrics.limit_hit("list_items_max");
        }
        metadata["continue"] = json!((offset + page.len()).to_string());
        metadata["remainingItemCount"] = json!(rest);
    }
    let items = if page.is_empty() { Value::Null } else { Value::Array(page) };
    Ok(Answer(fields.list(json!({"metadata": metadata, "items": items}))))
}

/// The key of a workflow as the path names it; `@latest` is the one accepted last in the namespace.
pub(crate) fn resolve<V: View>(view: &V, namespace: &str, name: &str) -> Result<WorkflowKey, ApiError> {
    if name == "@latest" {
        let latest = view.workflow_keys(Some(namespace)).pop();
        return latest.ok_or_else(|| {
            ApiError::new(Code::NotFound, "no workflow is in the namespace: @latest names none")
        });
    }
    let key = WorkflowKey { namespace: namespace.to_owned(), name: name.to_owned() };
    if view.workflow_id(&key).is_some() { Ok(key) } else { Err(ApiError::workflow_not_found(name)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unfinished_before_finished_and_the_newest_first() {
        let summary =
            |created_at_ms, finished_at_ms| Summary { created_at_ms, finished_at_ms, ..Summary::default() };
        let mut all = [
            summary(1000, Some(9000)),
            summary(2000, Some(9999)),
            summary(3000, None),
            summary(4000, None),
            summary(0, Some(20_000)),
        ];
        all.sort_by_key(argos_order);
        let order: Vec<i64> = all.iter().map(|summary| summary.created_at_ms).collect();
        assert_eq!(order, [4000, 3000, 0, 1000, 2000]);
    }
}
