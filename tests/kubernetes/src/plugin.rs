//! An executor plugin of Argo, as its users install one.

use serde_json::{Value, json};

/// The ConfigMap of the plugin `hello`: it checks its token, and every step that it is asked about succeeds with the message
/// `hello` and the output parameter `p` of the value `v`.
#[must_use]
pub fn executor_plugin() -> Value {
    let script = "while true; do nc -l -p 4355 -e sh -c 'length=0; while read -r line; do line=${line%?}; \
        case \"$line\" in Content-Length:*) length=${line#*: };; Authorization:*) token=${line##* };; \"\") break;; esac; done; \
        head -c $length >/dev/null; \
        if [ \"$token\" = \"$(cat /var/run/argo/token)\" ]; then \
        body=\"{\\\"node\\\":{\\\"phase\\\":\\\"Succeeded\\\",\\\"message\\\":\\\"hello\\\",\\\"outputs\\\":{\\\"parameters\\\":[{\\\"name\\\":\\\"p\\\",\\\"value\\\":\\\"v\\\"}]}}}\"; \
        printf \"HTTP/1.1 200 OK\\r\\nContent-Length: ${#body}\\r\\nConnection: close\\r\\n\\r\\n$body\"; \
        else printf \"HTTP/1.1 403 Forbidden\\r\\nContent-Length: 0\\r\\n\\r\\n\"; fi'; done";
    let container = json!({"name": "hello", "image": "busybox", "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", script], "ports": [{"containerPort": 4355}],
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"cpu": "100m", "memory": "32Mi"}},
        "securityContext": {"runAsNonRoot": true, "runAsUser": 65534}});
    json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "hello-executor-plugin", "labels": {"workflows.argoproj.io/configmap-type": "ExecutorPlugin"}},
        "data": {"sidecar.automountServiceAccountToken": "false", "sidecar.container": container.to_string()}})
}
