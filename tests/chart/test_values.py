"""Values that cannot work are refused before anything is rendered, in words that say which one and what is wanted."""

import json
import unittest

import yaml

from rendered import CHART, HelmFailed, helm, of_kind, render, render_values

REGION = {"name": "seoul", "shards": 4, "group": "main", "poolSize": 8, "ledger": {"secret": "s", "key": "uri"}}
GROUP = {"name": "main", "replicas": 2}

# What is wrong: values, and what the message must say.
BROKEN = {
    "a text where a number belongs": ({"gateway": {"replicas": "two"}}, "at '/gateway/replicas': got string, want integer"),
    "a mistyped name": ({"gateway": {"replica": 3}}, "at '/gateway': additional properties 'replica' not allowed"),
    "a section nobody knows": ({"ingres": {}}, "additional properties 'ingres' not allowed"),
    "no region": ({"regions": []}, "at '/regions': minItems: got 0, want 1"),
    "a region without a database": (
        {"regions": [{key: REGION[key] for key in REGION if key != "ledger"}]}, "at '/regions/0': missing property 'ledger'"),
    "a region with a capital": ({"regions": [REGION | {"name": "Seoul"}]}, "at '/regions/0/name': 'Seoul' does not match pattern"),
    "no shards": ({"regions": [REGION | {"shards": 0}]}, "at '/regions/0/shards': minimum: got 0, want 1"),
    "a region twice": ({"regions": [REGION, REGION]}, "regions: seoul is named twice"),
    "a region nobody serves": (
        {"regions": [REGION | {"group": "south"}]}, 'regions: seoul is served by the group "south", which is not in inventory.groups'),
    "a group without a region": (
        {"inventory": {"groups": [GROUP, GROUP | {"name": "idle"}]}}, "inventory.groups: idle serves no region"),
    "a group twice": ({"inventory": {"groups": [GROUP, GROUP]}}, "inventory.groups: main is named twice"),
    "one inventory alone": (
        {"inventory": {"groups": [GROUP | {"replicas": 1}]}}, "at '/inventory/groups/0/replicas': minimum: got 1, want 2"),
    "a group's long name": (
        {"inventory": {"groups": [GROUP | {"name": "g" * 17}]}}, "at '/inventory/groups/0/name'"),
    "no etcd": ({"etcd": {"endpoints": []}}, "at '/etcd/endpoints': minItems: got 0, want 1"),
    "etcd without a port": ({"etcd": {"endpoints": ["https://etcd"]}}, "at '/etcd/endpoints/0': 'https://etcd' does not match pattern"),
    "no TLS without dev": ({"tls": {"gatewaySecret": ""}}, "tls.gatewaySecret: is empty, and without it there is no TLS; only with dev: true"),
    "etcd without TLS": ({"etcd": {"tlsSecrets": {"identity": ""}}}, "etcd.tlsSecrets.identity: is empty"),
    "a database without TLS": ({"people": {"caSecret": ""}}, "people.caSecret: is empty"),
    "the development provider": (
        {"providers": {"list": [{"issuer": "https://a.example", "jwksKey": "a", "development": True}]}},
        "providers.list: https://a.example vouches for anybody; only with dev: true"),
    "no provider": ({"providers": {"list": []}}, "at '/providers/list': minItems: got 0, want 1"),
    "a digest that is none": ({"image": {"digest": "latest"}}, "at '/image/digest': 'latest' does not match pattern"),
    "a scaler upside down": (
        {"gateway": {"autoscaling": {"enabled": True, "minReplicas": 9, "maxReplicas": 3}}},
        "gateway.autoscaling: minReplicas is above maxReplicas"),
    "a budget of nobody": ({"identity": {"podDisruptionBudget": {"maxUnavailable": 0}}}, "at '/identity/podDisruptionBudget/maxUnavailable'"),
    "a drain without end": ({"gateway": {"drain": {"deadlineSeconds": 0}}}, "at '/gateway/drain/deadlineSeconds': minimum: got 0, want 1"),
    "a spread nobody knows": (
        {"topologySpread": [{"topologyKey": "a", "whenUnsatisfiable": "Always"}]}, "at '/topologySpread/0/whenUnsatisfiable'"),
    "an objective of everything": ({"monitoring": {"rules": {"objective": 1}}}, "at '/monitoring/rules/objective'"),
    "windows of no length": ({"monitoring": {"rules": {"windowScale": 0}}}, "at '/monitoring/rules/windowScale'"),
    "a test in a foreign region": ({"test": {"region": "jeju"}}, "test.region: jeju is none of the regions"),
    "a setting without a value": (
        {"gateway": {"settings": {"gateway": {"watchers_max": [None]}}}}, "settings: a setting has no value"),
    "a long name": ({"fullnameOverride": "n" * 25}, "has more than 24 letters: give a shorter one as fullnameOverride"),
}


class Broken(unittest.TestCase):
    def test_broken_values_are_refused_with_what_is_wrong(self):
        for name, (values, says) in BROKEN.items():
            with self.subTest(name), self.assertRaises(HelmFailed) as refused:
                render_values(values)
            self.assertIn(says, str(refused.exception), name)

    def test_several_mistakes_are_told_at_once(self):
        with self.assertRaises(HelmFailed) as refused:
            render_values({"gateway": {"replicas": 0}, "identity": {"replicas": 0}, "dev": "yes"})
        for place in ("/gateway/replicas", "/identity/replicas", "/dev"):
            self.assertIn(f"at '{place}'", str(refused.exception))

    def test_lint_refuses_them_too(self):
        with self.assertRaises(HelmFailed) as refused:
            helm("lint", str(CHART), "--set", "gateway.replicas=zero")
        self.assertIn("/gateway/replicas", str(refused.exception))

    def test_an_old_kubernetes_is_refused(self):
        with self.assertRaises(HelmFailed) as refused:
            helm("template", "x", str(CHART), "--kube-version", "1.29.0")
        self.assertIn("incompatible with Kubernetes v1.29.0", str(refused.exception))


class Schema(unittest.TestCase):
    def test_every_value_is_in_the_schema_and_the_schema_in_the_values(self):
        schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
        values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))

        def compare(path, node, value):
            node = schema["$defs"][node["$ref"].rsplit("/", 1)[1]] if "$ref" in node else node
            if "properties" in node and isinstance(value, dict):
                self.assertFalse(node["additionalProperties"], path)
                named = set(node["properties"]) - {"global"}
                optional = named - set(node.get("required", ()))
                self.assertEqual(named - optional - set(value), set(), f"{path} has no default")
                for key in value:
                    self.assertIn(key, named, path)
                    compare(f"{path}.{key}", node["properties"][key], value[key])
            elif node.get("type") == "array" and value:
                compare(f"{path}[0]", node["items"], value[0])
        compare("values", schema, values)


class Names(unittest.TestCase):
    def test_another_name_is_everywhere(self):
        for one in render(settings=("fullnameOverride=doses", "monitoring.rules.enabled=true")):
            self.assertTrue(one["metadata"]["name"].startswith("doses"), one["metadata"]["name"])

    def test_a_digest_decides_over_a_tag(self):
        digest = "sha256:" + "0" * 64
        for one in of_kind(render(settings=(f"image.digest={digest}", "image.tag=v7")), "Deployment", "StatefulSet", "Pod"):
            spec = one["spec"].get("template", one)["spec"]
            self.assertEqual(spec["containers"][0]["image"], f"doseline@{digest}")


if __name__ == "__main__":
    unittest.main()
