"""Every values file renders, and every object is one that Kubernetes takes and that does what it is there for."""

import hashlib
import re
import tarfile
import tempfile
import unittest

import jsonschema
import kubernetes_validate
import yaml

from custom_resources import SCHEMAS
from rendered import (CHART, INSTALLATIONS, RELEASE, ROLES, cases, everything, flags, helm, installation,
                      label, of_kind, pods, render, render_values, role, selects)

# The oldest that Chart.yaml allows, and the newest that the package knows.
KUBERNETES = ("1.30", "1.37")

# After the drain: cut tasks, flush traces, leave. See services/runtime/src/boot.rs.
AFTER_DRAIN_SECS = 6

DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def fault(one, version):
    """What is wrong with an object, or None."""
    schema = SCHEMAS.get(one["kind"])
    try:
        if schema is not None:
            jsonschema.Draft202012Validator(schema).validate(one)
        else:
            kubernetes_validate.validate(one, version, strict=True)
    except jsonschema.ValidationError as error:
        return f"{label(one)} for {version}: {'.'.join(map(str, error.path))}: {error.message}"
    except kubernetes_validate.SchemaNotFoundError as error:
        return f"{label(one)}: {error.message}"
    return None


def references(spec):
    """(kind, name, key or None) of what a pod needs from elsewhere."""
    found = []
    for volume in spec.get("volumes", ()):
        sources = volume["projected"]["sources"] if "projected" in volume else [volume]
        for source in sources:
            secret, config = source.get("secret"), source.get("configMap")
            if secret:
                found.append(("Secret", secret.get("secretName") or secret["name"]))
            if config:
                found.append(("ConfigMap", config["name"]))
    return found


class Lint(unittest.TestCase):
    def test_helm_finds_nothing_wrong_with_any_values_file(self):
        for name, files in INSTALLATIONS.items():
            with self.subTest(name):
                said = helm("lint", "--strict", str(CHART), *flags(files))
                self.assertIn("0 chart(s) failed", said)
                self.assertNotRegex(said, r"\[(ERROR|WARNING)\]")

    def test_every_values_file_is_tried(self):
        files = {path.name for path in CHART.glob("values*.yaml")}
        self.assertEqual(files, set(INSTALLATIONS))

    def test_the_chart_is_packaged_with_its_dashboards_and_runbooks_and_without_examples(self):
        with tempfile.TemporaryDirectory() as folder:
            helm("package", str(CHART), "--destination", folder)
            with tarfile.open(f"{folder}/doseline-0.1.0.tgz") as package:
                names = package.getnames()
        for name in ("dashboards/room.json", "runbooks/stuck-shard.md", "values.schema.json", "templates/NOTES.txt"):
            self.assertIn(f"doseline/{name}", names)
        self.assertFalse([name for name in names if "examples/" in name or "image/" in name])


class Objects(unittest.TestCase):
    def test_kubernetes_takes_every_object(self):
        for name, objects in cases().items():
            for version in KUBERNETES:
                with self.subTest(name, version=version):
                    self.assertEqual([why for why in (fault(one, version) for one in objects) if why], [])

    def test_a_mistyped_field_is_refused(self):
        one = next(yaml.safe_load_all(yaml.safe_dump(of_kind(installation("values.yaml"), "Deployment")[0])))
        one["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
        self.assertIn("livenesProbe", fault(one, KUBERNETES[1]))
        rules = yaml.safe_load(yaml.safe_dump(of_kind(everything(), "PrometheusRule")[0]))
        rules["spec"]["groups"][0]["rules"][0]["fro"] = "1m"
        self.assertIsNotNone(fault(rules, KUBERNETES[1]))

    def test_there_is_one_of_each_name_and_names_fit(self):
        for name, objects in cases().items():
            with self.subTest(name):
                names = [label(one) for one in objects]
                self.assertEqual(sorted(names), sorted(set(names)))
                for one in objects:
                    self.assertRegex(one["metadata"]["name"], f"^{DNS_LABEL.pattern}$")
                    self.assertTrue(one["metadata"]["name"].startswith(RELEASE))
                    self.assertNotIn("namespace", one["metadata"], "helm says where")

    def test_the_longest_names_still_fit(self):
        group = "g" * 16
        values = {"fullnameOverride": "n" * 24, "regions": [{"name": "seoul", "shards": 1, "poolSize": 1, "group": group,
                  "ledger": {"secret": "s", "key": "k"}}], "inventory": {"groups": [{"name": group, "replicas": 2}]}}
        for one in render_values(values):
            # A StatefulSet's pods get a number, and a label with the set's name and ten letters of a hash.
            most = 52 if one["kind"] == "StatefulSet" else 63
            self.assertLessEqual(len(one["metadata"]["name"]), most, label(one))

    def test_each_role_has_its_workload_policy_budget_and_account(self):
        for name, objects in cases().items():
            with self.subTest(name):
                kinds = {(one["kind"], role(one["metadata"]["labels"])) for one in objects}
                for one in ROLES:
                    set_kind = "StatefulSet" if one == "inventory" else "Deployment"
                    for kind in (set_kind, "PodDisruptionBudget", "NetworkPolicy", "ServiceAccount", "ConfigMap", "Service"):
                        self.assertIn((kind, one), kinds)


class Wiring(unittest.TestCase):
    @staticmethod
    def each():
        return cases().values()

    def test_selectors_find_the_pods_of_their_role_and_no_others(self):
        for objects in self.each():
            for one in of_kind(objects, "Deployment", "StatefulSet", "PodDisruptionBudget", "NetworkPolicy", "Service"):
                spec = one["spec"]
                selector = spec.get("podSelector") or spec["selector"]
                if one["kind"] == "Service":
                    selector = {"matchLabels": selector}
                found = [meta["labels"] for _, meta, _ in pods(objects) if selects(selector, meta["labels"])]
                self.assertTrue(found, f"{label(one)} finds no pod")
                mine = one["metadata"]["labels"]
                for labels in found:
                    self.assertEqual(role(labels), role(mine), label(one))
                    if "doseline/group" in mine:
                        self.assertEqual(labels["doseline/group"], mine["doseline/group"], label(one))

    def test_ports_that_are_named_exist(self):
        for objects in self.each():
            ports = {role(meta["labels"]): {port["name"] for box in spec["containers"] for port in box.get("ports", ())}
                     for _, meta, spec in pods(objects)}
            for one in of_kind(objects, "Service"):
                for port in one["spec"]["ports"]:
                    self.assertIn(port["targetPort"], ports[role(one["metadata"]["labels"])], label(one))
            for one in of_kind(objects, "NetworkPolicy"):
                for rule in one["spec"]["ingress"]:
                    for port in rule["ports"]:
                        self.assertIn(port["port"], ports[role(one["metadata"]["labels"])], label(one))
            for one in of_kind(objects, "PodMonitor"):
                for place in one["spec"]["podMetricsEndpoints"]:
                    self.assertTrue(all(place["port"] in ports[of] for of in ROLES))

    def test_a_pod_reads_only_what_the_chart_makes_or_says_that_it_needs(self):
        told = (CHART / "values.yaml").read_text(encoding="utf-8") + (CHART / "values-ha.yaml").read_text(encoding="utf-8")
        for objects in self.each():
            made = {one["metadata"]["name"] for one in of_kind(objects, "ConfigMap")}
            for name, _, spec in pods(objects):
                for kind, wanted in references(spec):
                    given = kind == "ConfigMap" and wanted in made or re.search(rf"\b{wanted}\b", told)
                    self.assertTrue(given or wanted == "callers", f"{name} needs {kind}/{wanted}")

    def test_secrets_reach_only_the_roles_that_need_them(self):
        for objects in self.each():
            for name, meta, spec in pods(objects):
                secrets = {wanted for kind, wanted in references(spec) if kind == "Secret"}
                may = {
                    "gateway": {"doseline-internal", "doseline-page"},
                    "inventory": {"doseline-internal"},
                    "identity": {"doseline-internal", "doseline-people-keys", "doseline-permit-signing",
                                 "doseline-room-signing", "doseline-people", "doseline-people-ca"},
                    "test": {"doseline-test-caller"},
                }[role(meta["labels"])]
                own = {one for one in secrets if one.startswith(f"doseline-{role(meta['labels'])}-")}
                ledgers = {one for one in secrets if one.startswith("doseline-ledger-")}
                if role(meta["labels"]) == "inventory":
                    self.assertTrue(ledgers, name)
                    receipts = {one.replace("-ledger-", "-receipt-signing-") for one in ledgers}
                    own |= ledgers | secrets & receipts
                self.assertEqual(secrets - may - own, set(), name)

    def test_accounts_exist_and_have_no_rights(self):
        for objects in self.each():
            accounts = {one["metadata"]["name"]: one for one in of_kind(objects, "ServiceAccount")}
            for _, meta, spec in pods(objects):
                self.assertFalse(spec["automountServiceAccountToken"])
                if role(meta["labels"]) in ROLES:
                    self.assertFalse(accounts[spec["serviceAccountName"]]["automountServiceAccountToken"])
            self.assertEqual(of_kind(objects, "Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"), [])

    def test_the_autoscaler_scales_the_gateway_and_nobody_else_sets_its_replicas(self):
        for objects in self.each():
            scalers = of_kind(objects, "HorizontalPodAutoscaler")
            gateway = next(one for one in of_kind(objects, "Deployment") if role(one["metadata"]["labels"]) == "gateway")
            self.assertEqual("replicas" in gateway["spec"], not scalers)
            for one in scalers:
                self.assertEqual(one["spec"]["scaleTargetRef"]["name"], gateway["metadata"]["name"])
                self.assertEqual([metric["type"] for metric in one["spec"]["metrics"]], ["Pods", "Pods", "Resource"])
                requests = gateway["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]
                self.assertIn("cpu", requests, "a part of nothing cannot be measured")

    def test_without_custom_metrics_processor_time_decides_alone(self):
        objects = render(settings=("gateway.autoscaling.enabled=true", "gateway.autoscaling.customMetrics=false"))
        metrics = of_kind(objects, "HorizontalPodAutoscaler")[0]["spec"]["metrics"]
        self.assertEqual([metric["type"] for metric in metrics], ["Resource"])

    def test_every_region_is_in_the_ledgers_of_exactly_one_group(self):
        sets = of_kind(installation("values-ha.yaml"), "StatefulSet")
        paths = [item["path"] for one in sets for volume in one["spec"]["template"]["spec"]["volumes"]
                 if volume["name"] == "ledgers" for source in volume["projected"]["sources"]
                 for item in source["secret"]["items"]]
        self.assertEqual(sorted(paths), ["busan.url", "gyeonggi.url", "jeju.url", "seoul.url"])


class Pods(unittest.TestCase):
    @staticmethod
    def each():
        return [(role(meta["labels"]), spec) for objects in cases().values() for _, meta, spec in pods(objects)]

    def test_pods_keep_to_the_restricted_standard(self):
        for _, spec in self.each():
            whole = spec["securityContext"]
            self.assertTrue(whole["runAsNonRoot"])
            self.assertGreater(whole["runAsUser"], 0)
            self.assertEqual(whole["seccompProfile"], {"type": "RuntimeDefault"})
            self.assertFalse({"hostNetwork", "hostPID", "hostIPC"} & set(spec))
            self.assertNotIn("initContainers", spec)
            for box in spec["containers"]:
                own = box["securityContext"]
                self.assertEqual(own, {"allowPrivilegeEscalation": False, "privileged": False,
                                       "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}})
                self.assertFalse([port for port in box.get("ports", ()) if "hostPort" in port])
                self.assertIn("memory", box["resources"]["limits"])
                self.assertTrue(all(mount["readOnly"] for mount in box.get("volumeMounts", ())))
            for volume in spec.get("volumes", ()):
                self.assertLessEqual(set(volume) - {"name"}, {"configMap", "secret", "projected"})
                secret = volume.get("secret") or volume.get("projected")
                if secret:
                    self.assertEqual(secret["defaultMode"], 0o440)

    def test_a_pod_has_the_time_that_its_drain_needs(self):
        for _, meta, spec in (one for objects in cases().values() for one in pods(objects) if role(one[1]["labels"]) in ROLES):
            box = spec["containers"][0]
            config = next(volume["configMap"]["name"] for volume in spec["volumes"] if volume["name"] == "config")
            text = next(one["data"] for objects in cases().values() for one in of_kind(objects, "ConfigMap")
                        if one["metadata"]["name"] == config and self.belongs(one, meta))
            settings = next(iter(text.values()))
            notice, deadline = (int(re.search(rf'{key} = "(\d+)s"', settings)[1]) for key in ("drain_notice", "drain_deadline"))
            before = box.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
            least = before + notice + deadline + AFTER_DRAIN_SECS
            self.assertGreater(spec["terminationGracePeriodSeconds"], least)
            if role(meta["labels"]) == "gateway":
                self.assertGreater(before, 0, "its Service still sends callers when the signal comes")

    @staticmethod
    def belongs(config, meta):
        """Whether a pod was rendered together with this ConfigMap."""
        text = next(iter(config["data"].values()))
        return meta["annotations"]["doseline/config"] in {
            hashlib.sha256(one.encode()).hexdigest() for one in (text, text.rstrip("\n"))}

    def test_probes_ask_the_watching_port(self):
        for of, spec in self.each():
            if of not in ROLES:
                continue
            box = spec["containers"][0]
            paths = {kind: box[kind]["httpGet"] for kind in ("startupProbe", "livenessProbe", "readinessProbe")}
            self.assertEqual({kind: ask["path"] for kind, ask in paths.items()},
                             {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"})
            self.assertEqual({ask["port"] for ask in paths.values()}, {"watching"})

    def test_pods_of_a_role_keep_apart(self):
        for objects in cases().values():
            for _, meta, spec in pods(objects):
                for constraint in spec.get("topologySpreadConstraints", ()):
                    self.assertTrue(selects(constraint["labelSelector"], meta["labels"]))
                if role(meta["labels"]) in ROLES:
                    self.assertEqual(len(spec["topologySpreadConstraints"]), 2)

    def test_another_configuration_makes_other_pods(self):
        def hashes(objects):
            return {name: meta["annotations"]["doseline/config"] for name, meta, _ in pods(objects)
                    if role(meta["labels"]) in ROLES}
        before = hashes(installation("values.yaml"))
        after = hashes(render(settings=("gateway.settings.gateway.watchers_max=7",)))
        self.assertEqual({name for name in before if before[name] != after[name]}, {f"{RELEASE}-gateway"})


class Network(unittest.TestCase):
    """Who reaches whom, by the policies as they are written; no cluster here enforces them."""

    def reaches(self, objects, caller, port, of):
        """Whether pods of `caller` may reach this port of pods of the role `of`."""
        policy = next(one for one in of_kind(objects, "NetworkPolicy") if role(one["metadata"]["labels"]) == of)
        labels = {"app.kubernetes.io/name": "doseline", "app.kubernetes.io/instance": RELEASE, **caller}
        for rule in policy["spec"]["ingress"]:
            if port in [one["port"] for one in rule["ports"]]:
                peers = rule.get("from")
                if peers is None or any("podSelector" in one and "namespaceSelector" not in one
                                        and selects(one["podSelector"], labels) for one in peers):
                    return True
        return False

    def test_services_are_reached_only_by_those_who_need_them(self):
        component = "app.kubernetes.io/component"
        for name, objects in cases().items():
            with self.subTest(name):
                for policy in of_kind(objects, "NetworkPolicy"):
                    self.assertEqual(policy["spec"]["policyTypes"], ["Ingress", "Egress"])
                for caller, port, of, may in (
                    ({component: "gateway"}, "commands", "inventory", True),
                    ({component: "inventory"}, "commands", "inventory", True),
                    ({component: "identity"}, "commands", "inventory", True),
                    ({component: "gateway"}, "permits", "identity", True),
                    ({component: "inventory"}, "permits", "identity", False),
                    ({component: "other"}, "commands", "inventory", False),
                    ({component: "other"}, "permits", "identity", False),
                    ({component: "gateway"}, "operators", "inventory", False),
                    ({component: "gateway"}, "operators", "identity", False),
                    ({"doseline/operator": "true"}, "operators", "identity", True),
                    ({"doseline/operator": "true"}, "operators", "inventory", True),
                    ({"doseline/operator": "true"}, "commands", "inventory", False),
                    ({component: "other"}, "public", "gateway", True),
                    ({component: "other"}, "web", "gateway", True),
                    ({component: "other"}, "watching", "gateway", False),
                ):
                    self.assertEqual(self.reaches(objects, caller, port, of), may, f"{caller} to {port} of {of}")

    def test_a_pod_of_another_release_is_a_stranger(self):
        objects = installation("values.yaml")
        foreign = {"app.kubernetes.io/component": "gateway", "app.kubernetes.io/instance": "other"}
        self.assertFalse(self.reaches(objects, foreign, "commands", "inventory"))

    def test_a_closed_public_port_still_lets_the_test_pod_in(self):
        objects = render(settings=("networkPolicy.publicFrom[0].podSelector.matchLabels.app=proxy",))
        self.assertTrue(self.reaches(objects, {"app": "proxy"}, "public", "gateway"))
        self.assertTrue(self.reaches(objects, {"app.kubernetes.io/component": "test"}, "public", "gateway"))
        self.assertFalse(self.reaches(objects, {"app": "other"}, "public", "gateway"))

    def test_pages_are_behind_an_ingress_where_it_is_named(self):
        objects = render(settings=("networkPolicy.webFrom[0].podSelector.matchLabels.app=ingress",))
        self.assertTrue(self.reaches(objects, {"app": "ingress"}, "web", "gateway"))
        self.assertFalse(self.reaches(objects, {"app": "other"}, "web", "gateway"))
        self.assertTrue(self.reaches(objects, {"app": "other"}, "public", "gateway"))

    def test_without_pages_there_is_no_way_to_them(self):
        objects = render(settings=("gateway.web.enabled=false",))
        self.assertFalse(self.reaches(objects, {"app": "other"}, "web", "gateway"))
        self.assertNotIn(f"{RELEASE}-web", [one["metadata"]["name"] for one in of_kind(objects, "Service")])

    def test_an_empty_list_of_operators_closes_their_ports(self):
        objects = render_values({"networkPolicy": {"operatorFrom": []}})
        self.assertFalse(self.reaches(objects, {"doseline/operator": "true"}, "operators", "identity"))
        self.assertTrue(self.reaches(objects, {"app.kubernetes.io/component": "gateway"}, "permits", "identity"))


if __name__ == "__main__":
    unittest.main()
