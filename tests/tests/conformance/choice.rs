//! Which cases are run, and what a process cluster can't do for them.

use argosy_conformance::case::Case;
use argosy_conformance::compare::Seen;

/// How a process cluster refuses what it does not have.
pub const LACKS: &str = "the process runtime ";

/// One or two cases of what goes through most of the system, and each operator action.
pub const SAMPLE: [&str; 33] = [
    "again/resubmit-plain",
    "again/retry-fails-again",
    "again/retry-of-retry-node",
    "again/retry-running-refused",
    "again/retry-terminated",
    "dag/dag-error-and-failed",
    "dag/dag-fail-fast-true",
    "exit/onexit-after-failure",
    "exit/hook-step-exit-expression",
    "globals/globals-output-of-failed-step",
    "loops/loop-aggregate-result-plain-text",
    "memo/memoize-hit-prepared-cache",
    "memo/memoize-miss-writes-cache",
    "memo/memoize-no-outputs",
    "params/param-output-missing-file-of-failed-pod",
    "params/param-output-path-is-directory",
    "params/param-output-trimming",
    "parallelism/parallelism-workflow-one",
    "retry/retry-script-result-of-last-attempt",
    "retry/retry-expression-with-onfailure-policy",
    "scripts/script-args",
    "scripts/script-result-trimming",
    "scripts/script-source-with-dollar",
    "shutdown/stop-running-pod",
    "shutdown/stop-runs-exit-handler",
    "shutdown/terminate-skips-exit-handler",
    "steps/steps-command-not-found",
    "steps/steps-parallel-sibling-fails",
    "suspend/suspend-approval-resume",
    "suspend/suspend-node-set-phase-failed",
    "sync/semaphore-raised-while-waiting",
    "tags/tag-dollar-in-value",
    "tags/tag-inputs-parameters-json",
];

/// The same for Pods: their shapes, their failures, their removal.
pub const POD_SAMPLE: [&str; 28] = [
    "containerset/containerset-dependencies",
    "containerset/containerset-exit-64-is-error",
    "containerset/containerset-first-fails",
    "containerset/containerset-main-output",
    "containerset/containerset-retry",
    "data/data-template-artifact-paths",
    "data/data-template-bad-expression",
    "failure/configmap-key-env-missing",
    "failure/exit-code-137-by-itself",
    "failure/exit-code-64",
    "failure/image-never-pull",
    "failure/no-command-known-image",
    "failure/oom-killed",
    "failure/pod-deleted-with-retry",
    "failure/run-as-non-root",
    "failure/termination-message",
    "failure/volume-mount-without-volume",
    "gc/podgc-label-selector",
    "gc/podgc-on-pod-completion",
    "gc/podgc-on-pod-success",
    "pods/container-set-template-retry",
    "pods/init-container-fails",
    "pods/init-container-runs-first",
    "pods/progress-file",
    "pods/sidecar-ended-after-main",
    "pods/sidecar-exits-zero-early",
    "podspec/podspec-patch-invalid",
    "podspec/podspec-pod-disruption-budget",
];
/// Words of manifests that a process cluster can't carry out as recorded, and does not refuse.
pub const LACKING: [(&str, &str); 12] = [
    ("nodeSelector: {no-such", "hosts with labels"),
    ("no-such-account", "service accounts"),
    ("securityContext", "containers"),
    ("resources:", "limits of containers"),
    ("imagePullPolicy: Never", "images"),
    ("Not a name", "images"),
    ("httpd ", "a web server of busybox's"),
    ("http://10.200.", "a network of the test's own"),
    ("podDisruptionBudget", "a cluster that keeps budgets"),
    ("/dev/termination-log", "a kubelet"),
    ("ARGO_PROGRESS_FILE", "a Pod's volumes"),
    ("hostname", "Pods, which have host names of their own"),
];
/// Cases whose recording shows something of Pods that a process does not have.
pub const ELSEWHERE: [(&str, &str); 6] = [
    ("daemon/daemon-fails-at-once", "a daemon is ready as it starts, and whether it was is a race"),
    ("scripts/container-argo-env", "a process has variables of its own"),
    ("steps/steps-killed-by-signal", "the shell of the host is not busybox's"),
    ("failure/exit-code-137-by-itself", "the shell of the host is not busybox's"),
    ("failure/exit-code-143-by-itself", "the shell of the host is not busybox's"),
    (
        "exit/workflow-status-inside-main",
        "the first pass of Argo's loop: globals/globals-status-while-running",
    ),
];

/// What keeps a case from being run here, before it is tried.
pub fn needs_more(case: &Case, is_kubernetes: bool) -> Option<String> {
    // What is Kubernetes' the process cluster itself refuses by name.
    let needs: Vec<&String> = case.facts.needs.iter().filter(|need| *need != "kubernetes").collect();
    if !is_kubernetes && !needs.is_empty() {
        let needs: Vec<&str> = needs.into_iter().map(String::as_str).collect();
        return Some(format!("needs {}", needs.join(", ")));
    }
    if let Some(reason) = needs_pods(case).filter(|_| !is_kubernetes) {
        return Some(reason);
    }
    let runs = case.record["nodes"].as_array().into_iter().flatten().any(|node| node["type"] == "Pod");
    let acts = !case.script.is_empty();
    let is_elsewhere = !is_kubernetes && !runs && !acts && !case.facts.containers;
    is_elsewhere.then(|| "runs no container: scripted".to_owned())
}

/// What a process cluster does not have, and does not refuse.
pub fn needs_pods(case: &Case) -> Option<String> {
    if let Some((_, reason)) = ELSEWHERE.iter().find(|(name, _)| *name == case.name) {
        return Some((*reason).to_owned());
    }
    let texts = || case.objects.iter().map(|object| object.text.as_str());
    if let Some((word, what)) = LACKING.iter().find(|(word, _)| texts().any(|text| text.contains(word))) {
        return Some(format!("needs {what} ({word})"));
    }
    if case.script.iter().any(|step| step.fields["kind"] == "Pod" || step.verb == "delete-pod") {
        return Some("needs Kubernetes (Pods)".to_owned());
    }
    let is_cron = case.objects.first().is_some_and(|object| object.kind == "CronWorkflow");
    (is_cron && case.record["createError"].is_null())
        .then(|| "its minutes are those of the clock: scripted".to_owned())
}

/// Whether something could not be done for want of Kubernetes. Any other refusal is a difference.
pub fn wants_kubernetes(reason: &str) -> bool {
    ["need a Kubernetes cluster", "needs a Kubernetes cluster", "needs Kubernetes", LACKS]
        .iter()
        .any(|words| reason.contains(words))
}

/// A process cluster said that it does not have something.
pub fn lacking(seen: &Seen) -> Option<String> {
    let all = seen.main.iter().chain(seen.others.iter().map(|(_, workflow)| workflow));
    let nodes = all.flat_map(|workflow| workflow["status"]["nodes"].as_object().into_iter().flatten());
    let messages = nodes.filter_map(|(_, node)| node["message"].as_str());
    messages.filter(|message| message.contains(LACKS)).map(str::to_owned).next()
}
