"""The worked examples are objects that their owners would take, and make what values.yaml asks for by name."""

import re
import unittest

import jsonschema
import kubernetes_validate
import yaml

from custom_resources import SCHEMAS
from rendered import CHART, installation, pods

EXAMPLES = CHART / "examples"


def objects(name):
    """All objects of an example."""
    return [one for one in yaml.safe_load_all((EXAMPLES / name).read_text(encoding="utf-8")) if one]


class Examples(unittest.TestCase):
    def test_every_object_has_the_shape_of_its_kind(self):
        count = 0
        for path in sorted(EXAMPLES.glob("*.yaml")):
            for one in objects(path.name):
                if "kind" not in one:
                    continue
                with self.subTest(path.name, object=one["metadata"]["name"]):
                    count += 1
                    if one["kind"] in SCHEMAS:
                        jsonschema.Draft202012Validator(SCHEMAS[one["kind"]]).validate(one)
                    else:
                        kubernetes_validate.validate(one, "1.37", strict=True)
        self.assertGreater(count, 15)

    def test_databases_acknowledge_nothing_that_one_machine_alone_has(self):
        clusters = objects("cloudnativepg.yaml")
        self.assertEqual({one["metadata"]["name"] for one in clusters}, {"doseline-ledger-seoul", "doseline-people"})
        for one in clusters:
            self.assertEqual(one["spec"]["postgresql"]["synchronous"], {"method": "any", "number": 1, "dataDurability": "required"})

    def test_certificates_are_those_that_pods_mount(self):
        made = {one["spec"]["secretName"] for one in objects("certificates.yaml") if one["kind"] == "Certificate"}
        wanted = {volume["secret"]["secretName"] for _, _, spec in pods(installation("values.yaml"))
                  for volume in spec["volumes"] if re.search(r"(tls|etcd|caller)$", volume["name"])}
        self.assertGreater(len(wanted), 6)
        self.assertEqual(wanted - made, set())
        etcd = next(one for one in objects("etcd.yaml") if one["kind"] == "StatefulSet")
        self.assertIn(etcd["spec"]["template"]["spec"]["volumes"][0]["secret"]["secretName"], made)

    def test_parts_say_who_they_are_and_carry_the_name_they_are_checked_by(self):
        values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
        made = {one["spec"]["secretName"]: one["spec"] for one in objects("certificates.yaml") if one["kind"] == "Certificate"}
        for role in ("gateway", "inventory", "identity"):
            part = made[values["tls"][f"{role}Secret"]]
            self.assertRegex(part["uris"][0], rf"^doseline://{role}/\w+$")
            if role != "gateway":
                self.assertIn(values["tls"]["serverName"], part["dnsNames"])
            self.assertEqual(made[values["etcd"]["tlsSecrets"][role]]["commonName"], role)

    def test_etcd_is_reached_where_the_chart_looks_for_it(self):
        values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
        etcd = next(one for one in objects("etcd.yaml") if one["kind"] == "StatefulSet")
        name, service = etcd["metadata"]["name"], etcd["spec"]["serviceName"]
        members = [f"https://{name}-{at}.{service}:2379" for at in range(etcd["spec"]["replicas"])]
        self.assertEqual(values["etcd"]["endpoints"], members)


if __name__ == "__main__":
    unittest.main()
