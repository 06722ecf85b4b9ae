"""The program itself reads what the chart mounts: its own parser, the files where the pod finds them, the pod's words.

Invariant: nothing is told to the program here that a pod would not tell it. Only the folder /etc/doseline is another.
"""

import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import tomllib

from rendered import INSTALLATIONS, ROOT, cases, installation, of_kind, pods, render, render_values, role

sys.path.insert(0, str(ROOT / "tests" / "python"))
from served import program  # noqa: E402  (the client tests know where the program is)

ETC = "/etc/doseline"
FIELDS = {"metadata.name": "night-1", "status.podIP": "203.0.113.7", "spec.nodeName": "node-1"}

# Keys of Secrets and ConfigMaps as the README lists them, with what may stand in them.
PEM = "-----BEGIN CERTIFICATE-----\n"
WHOLE = {
    "tls": {"ca.crt": PEM, "tls.crt": PEM, "tls.key": PEM},
    "internal": {"internal.key": "a" * 32}, "page": {"page.key": "b" * 32},
    "people-keys": {"pepper.key": "c" * 32, "draw.key": "d" * 32},
    "permit-signing": {"k1.json": "{}"}, "room-signing": {"k1.json": "{}"}, "receipt-signing": {"k1.json": "{}"},
    "receipt-keys": {"seoul.json": "{}"},
    "public-keys": {"permit-keys.json": "{}", "room-keys.json": "{}"},
    "providers": {"id-example.jwks.json": "{}", "development_jwks.json": "{}"},
    "callers": {"callers.jwks.json": "{}"}, "people-ca": {"ca.crt": PEM},
}


class Pod:
    """A pod's container, with its mounts laid out in a folder of ours."""

    def __init__(self, objects, spec, folder):
        self.box, self.folder = spec["containers"][0], Path(folder)
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        for mount in self.box["volumeMounts"]:
            place = self.here(mount["mountPath"])
            place.mkdir(parents=True)
            for name, text in self.content(objects, mount["name"], volumes[mount["name"]]).items():
                (place / name).write_text(text.replace(ETC, str(self.here(ETC))), encoding="utf-8")

    def here(self, path):
        """Where a path of the pod is."""
        return self.folder / path.lstrip("/")

    @staticmethod
    def content(objects, name, volume):
        """What Kubernetes would put into a volume."""
        made = {one["metadata"]["name"]: one["data"] for one in of_kind(objects, "ConfigMap")}
        if volume.get("configMap", {}).get("name") in made:
            return made[volume["configMap"]["name"]]
        sources = volume.get("projected", {}).get("sources") or [volume]
        items = [item for source in sources for item in source.get("secret", {}).get("items", ())]
        if items:
            return {item["path"]: "postgres://user:word@db.example:5432/name" for item in items}
        if name.startswith("receipt-signing-"):
            name = "receipt-signing"
        return WHOLE["tls" if name in ("public-tls", "parts-tls", "etcd") else name]

    def environment(self):
        """The variables, with $(NAME) put in as Kubernetes does: only what stands before."""
        variables = {}
        for one in self.box.get("env", ()):
            value = one.get("value")
            if value is None:
                value = FIELDS[one["valueFrom"]["fieldRef"]["fieldPath"]]
            variables[one["name"]] = re.sub(r"\$\((\w+)\)", lambda found: variables.get(found[1], found[0]), value)
        return variables

    def run(self, *more):
        """Runs the program with the container's arguments and these."""
        arguments = [one.replace(ETC, str(self.here(ETC))) for one in self.box["args"]]
        return subprocess.run([program(), *arguments, *more], env=self.environment(), capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=60, check=False)

    def printed(self):
        """The settings as the program would use them."""
        done = self.run("--print-config")
        if done.returncode != 0:
            raise AssertionError(done.stderr)
        return tomllib.loads(done.stdout)


def ours(objects):
    """(role, pod spec) of our three roles."""
    return [(role(meta["labels"]), spec) for _, meta, spec in pods(objects) if role(meta["labels"]) != "test"]


def paths(settings):
    """All texts that are paths of the pod."""
    if isinstance(settings, dict):
        return [path for value in settings.values() for path in paths(value)]
    if isinstance(settings, list):
        return [path for value in settings for path in paths(value)]
    return [settings] if isinstance(settings, str) and f"{ETC}/" in settings else []


class Config(unittest.TestCase):
    def pod(self, objects, wanted, number=0):
        folder = tempfile.TemporaryDirectory(prefix="doseline-pod-")
        self.addCleanup(folder.cleanup)
        specs = [spec for of, spec in ours(objects) if of == wanted]
        return Pod(objects, specs[number], folder.name)

    def test_the_program_takes_every_rendered_file(self):
        for name, objects in cases().items():
            seen = []
            for of, spec in ours(objects):
                with self.subTest(name, role=of), tempfile.TemporaryDirectory() as folder:
                    done = Pod(objects, spec, folder).run("--check-config")
                    self.assertEqual((done.returncode, done.stdout), (0, "the configuration is fine\n"), done.stderr)
                    seen.append(of)
            self.assertEqual(set(seen), {"gateway", "inventory", "identity"})

    def test_every_file_that_settings_name_is_mounted(self):
        for name, objects in cases().items():
            for of, spec in ours(objects):
                with self.subTest(name, role=of), tempfile.TemporaryDirectory() as folder:
                    named = paths(Pod(objects, spec, folder).printed())
                    self.assertTrue(named)
                    self.assertEqual([path for path in named if not Path(path).exists()], [])

    def test_production_has_tls_everywhere_and_development_says_so(self):
        for name in INSTALLATIONS:
            for of, spec in ours(installation(name)):
                self.assertEqual("--dev" in spec["containers"][0]["args"], name == "values-dev.yaml", (name, of))

    def test_a_setting_the_program_does_not_know_is_refused_by_the_program(self):
        objects = render(settings=("gateway.settings.gateway.wachers_max=7",))
        done = self.pod(objects, "gateway").run("--check-config")
        self.assertEqual(done.returncode, 64)
        self.assertIn("wachers_max", done.stderr)

    def test_settings_lie_over_what_the_chart_writes(self):
        values = {
            "gateway": {"settings": {"gateway": {"watchers_max": 7, "shedding": {"commands_max": 1000}}}},
            "identity": {"settings": {"identity": {"doorkeeper": {"ceiling_per_second": 750, "presence": 0.5}}}},
            "inventory": {"groups": [{"name": "main", "replicas": 2, "settings": {"inventory": {"verify_threads": 3}}}]},
        }
        objects = render_values(values)
        gateway = self.pod(objects, "gateway").printed()["gateway"]
        self.assertEqual((gateway["watchers_max"], gateway["shedding"]["commands_max"]), (7, 1000))
        self.assertEqual(gateway["regions"], ["seoul"])
        doorkeeper = self.pod(objects, "identity").printed()["identity"]["doorkeeper"]
        self.assertEqual((doorkeeper["ceiling_per_second"], doorkeeper["presence"]), (750.0, 0.5))
        self.assertEqual(self.pod(objects, "inventory").printed()["inventory"]["verify_threads"], 3)

    def test_a_pod_says_where_it_is_reached_and_what_it_falls_with(self):
        inventory = self.pod(installation("values.yaml"), "inventory").printed()["inventory"]
        self.assertEqual((inventory["instance"], inventory["advertise"], inventory["failure_domain"]),
                         ("night-1", "203.0.113.7:7720", "node-1"))
        identity = self.pod(installation("values.yaml"), "identity").printed()["identity"]
        self.assertEqual((identity["instance"], identity["advertise"]), ("night-1", "203.0.113.7:7730"))

    def test_pods_with_ipv6_addresses_listen_and_say_so(self):
        objects = render(settings=("ipv6=true",))
        inventory = self.pod(objects, "inventory").printed()
        self.assertEqual(inventory["inventory"]["server"]["listen"], "[::]:7720")
        self.assertEqual(inventory["inventory"]["advertise"], "[203.0.113.7]:7720")
        self.assertEqual(inventory["process"]["admin"]["listen"], "[::]:7780")

    def test_each_group_serves_its_own_regions(self):
        objects = installation("values-ha.yaml")
        served = [[one["region"] for one in self.pod(objects, "inventory", at).printed()["inventory"]["regions"]]
                  for at in range(2)]
        self.assertEqual(served, [["seoul", "gyeonggi"], ["busan", "jeju"]])
        gateway = self.pod(objects, "gateway").printed()["gateway"]["regions"]
        self.assertEqual(sorted(gateway), sorted(served[0] + served[1]))

    def test_texts_with_signs_reach_the_program_as_they_are(self):
        odd = 'a"b\\c <é>'
        objects = render_values({"callers": {"audience": odd}})
        self.assertEqual(self.pod(objects, "gateway").printed()["gateway"]["callers"]["audience"], odd)

    def test_ports_are_those_that_the_settings_open(self):
        for name, objects in cases().items():
            for of, spec in ours(objects):
                with self.subTest(name, role=of), tempfile.TemporaryDirectory() as folder:
                    settings = Pod(objects, spec, folder).printed()
                    opened = {settings["process"]["admin"]["listen"], settings[of]["server"]["listen"]}
                    if of != "gateway":
                        opened.add(settings[of]["admin"]["listen"])
                    elif settings[of]["web"]["enabled"]:
                        opened.add(settings[of]["web"]["server"]["listen"])
                    named = {port["containerPort"] for port in spec["containers"][0]["ports"]}
                    self.assertEqual({int(one.rsplit(":", 1)[1]) for one in opened}, named)


if __name__ == "__main__":
    unittest.main()
