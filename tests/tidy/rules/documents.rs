//! What operators and clients see has the agreed name and is written down.

use super::whole;
use crate::tree::{File, Finding};

/// Where the registry lives: only here may a metric have a name that does not begin with `doseline_`.
const RUNTIME: &str = "services/runtime/src/";

/// Names of the semantic conventions and of Prometheus clients, which runtime registers without the prefix.
const CONVENTIONAL: [&str; 4] = [
    "rpc_server_call_duration_seconds",
    "rpc_client_call_duration_seconds",
    "db_client_operation_duration_seconds",
    "target_info",
];

/// Metrics get `doseline_` from runtime's registry, and `_total` from the encoder.
pub(crate) fn metrics(file: &File) -> Vec<Finding> {
    if !file.is("rs") || file.product().is_empty() {
        return Vec::new();
    }
    let runtime = file.path.starts_with(RUNTIME);
    let mut findings = Vec::new();
    let foreign = "prometheus_client::registry";
    for (number, line) in file.product().lines().enumerate() {
        if !runtime && line.contains(foreign) {
            findings.push(file.finding(
                number,
                "metrics are registered with runtime::metrics::Registry",
            ));
        }
    }
    for (number, name) in registered(file) {
        let known = CONVENTIONAL.contains(&name.as_str());
        let fault = if !name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        {
            "is not in snake_case"
        } else if runtime && !known {
            "is neither ours nor of the semantic conventions"
        } else if !runtime && name.starts_with("doseline_") {
            "would get the prefix twice"
        } else if !runtime && name.ends_with("_total") {
            "would get its ending twice"
        } else {
            continue;
        };
        findings.push(file.finding(number, format_args!("metric `{name}` {fault}")));
    }
    findings
}

/// Line and name of each `.register("name", …)`; the name may stand on the next line.
fn registered(file: &File) -> Vec<(usize, String)> {
    let product = &file.text[..];
    let lines_of_product = file.product().lines().count();
    let mut found = Vec::new();
    for call in [".register(", ".register_with_unit("] {
        for (at, _) in product.match_indices(call) {
            let number = product[..at].matches('\n').count();
            let argument = product[at + call.len()..].trim_start();
            let quoted = argument
                .strip_prefix('"')
                .and_then(|rest| rest.split_once('"'));
            // With one argument it is not a metric: those have a help text.
            let metric = quoted.filter(|(_, rest)| rest.trim_start().starts_with(','));
            if let Some((name, _)) = metric.filter(|_| number < lines_of_product) {
                found.push((number, name.to_owned()));
            }
        }
    }
    found
}

/// Each code must stand in some Markdown file, where a client's author looks it up.
pub(crate) fn refusals<'a>(codes: impl Iterator<Item = &'a str>, files: &[File]) -> Vec<Finding> {
    let documents: Vec<&File> = files.iter().filter(|file| file.is("md")).collect();
    let told = |code: &str| {
        documents
            .iter()
            .any(|file| whole(&file.text, code).next().is_some())
    };
    codes
        .filter(|code| !told(code))
        .map(|code| Finding(format!("refusal {code} stands in no Markdown file")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn badly_named_metrics_are_caught() {
        for (path, text) in [
            (
                "gateway/src/metrics.rs",
                "all.register(\"doseline_sheds\", \"Sheds\", m);",
            ),
            (
                "gateway/src/metrics.rs",
                "all.register(\n    \"sheds_total\",\n    \"Sheds\", m);",
            ),
            (
                "gateway/src/metrics.rs",
                "all.register(\"gatewaySheds\", \"Sheds\", m);",
            ),
            (
                "gateway/src/metrics.rs",
                "use prometheus_client::registry::Registry;",
            ),
            (
                "services/runtime/src/metrics.rs",
                "all.register(\"calls\", \"Calls\", m);",
            ),
        ] {
            assert_eq!(metrics(&File::new(path, text)).len(), 1, "{text}");
        }
        for (path, text) in [
            (
                "gateway/src/metrics.rs",
                "all.register(\"gateway_sheds\", \"Sheds\", m);",
            ),
            (
                "gateway/src/boot.rs",
                "readiness.register(\"store\").release();",
            ),
            ("gateway/src/metrics.rs", "registry.register(|all| {});"),
            (
                "services/runtime/src/metrics/rpc.rs",
                "all.register(\"rpc_server_call_duration_seconds\", \"Calls\", m);",
            ),
        ] {
            assert_eq!(metrics(&File::new(path, text)), [], "{text}");
        }
    }

    #[test]
    fn an_undocumented_refusal_is_caught() {
        let files = [
            File::new("README.md", "| `SLOT_FULL` | … |"),
            File::new("a.rs", "SLOT_CLOSED"),
        ];
        let found = refusals(["SLOT_FULL", "SLOT_CLOSED", "SLOT"].into_iter(), &files);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].0.contains("SLOT_CLOSED"));
    }
}
