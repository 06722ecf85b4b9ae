"""What rules and dashboards ask about is what a running program shows, and the test pod's script books with it.

Invariant: names come from the metrics page of a real process, after real calls. Nothing is looked up in a list.
"""

import json
import re
import subprocess
import sys
import time
import unittest
import urllib.error
import urllib.parse
import urllib.request

from rendered import CHART, ROOT, everything, installation, of_kind, pods, render, role

sys.path.insert(0, str(ROOT / "tests" / "python"))
from served import WITHIN_SECS, Refused, Server, asked, booking  # noqa: E402  (a client as others make it)

# Shown by Prometheus itself, or put on by the PodMonitor.
GIVEN_METRICS = {"up"}
GIVEN_LABELS = {"namespace", "release", "role", "group", "pod", "le"}
# Shown once somebody forges a room, a clinic fails, doses are left or somebody changes the region: none of it happens
# here, so the names are held against the code that registers them.
NOT_PROVOKED = {
    "doseline_room_documents_refused_total": {"reason"},
    "doseline_incident_moves_total": {"region", "verdict"},
    "doseline_departures_total": {"region", "verdict"},
    "doseline_identity_region_changes_total": {"outcome"},
}

KEYWORDS = {"and", "or", "unless", "by", "without", "on", "ignoring", "group_left", "group_right", "bool", "offset"}


def questions():
    """(where, expression) of every rule and panel."""
    for one in of_kind(everything(), "PrometheusRule"):
        for group in one["spec"]["groups"]:
            for rule in group["rules"]:
                yield rule.get("alert") or rule["record"], rule["expr"]
    for path in sorted((CHART / "dashboards").iterdir()):
        for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]:
            for target in panel["targets"]:
                yield f"{path.name}: {panel['title']}", target["expr"]


def asks(expression):
    """The metrics of an expression with the labels each is asked by, and the labels it is grouped by."""
    metrics, grouped = {}, set()
    rest = re.sub(r'"(?:[^"\\]|\\.)*"', '""', expression)
    for clause in re.findall(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)", rest):
        grouped |= {one.strip() for one in clause.split(",") if one.strip()}
    rest = re.sub(r"\b(by|without|on|ignoring)\s*\([^)]*\)", " ", rest)
    rest = re.sub(r"\[[^\]]*\]|\boffset\s+\w+", " ", rest)
    for name, labels, call in re.findall(r"([a-zA-Z_:][\w:]*)\s*(?:\{([^}]*)\})?\s*(\()?", rest):
        if not call and name not in KEYWORDS:
            metrics.setdefault(name, set()).update(re.findall(r"(\w+)\s*[=!]", labels))
    return metrics, grouped


def page(text):
    """Metrics of a page: name -> the labels of its samples."""
    shown = {}
    for name, labels in re.findall(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? \S+$", text, re.MULTILINE):
        shown.setdefault(name, set()).update(re.findall(r'(\w+)="', labels))
    return shown


class Running(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server()
        cls.addClassCleanup(cls.server.stop)
        cls.server.doseline("campaign", "apply", "campaign.json")
        cls.server.doseline("clinic", "apply", "clinics.json")
        cls.slots = [slot.name for slot in cls.server.await_slots("seoul", 2)]
        # A call that a gateway refuses itself; one before the doors; then a line and a booking.
        try:
            asked(cls.server.booking.Book, booking.BookRequest())
        except Refused as refused:
            cls.malformed = refused.reason
        early = cls.server.permit("early").permit
        request = booking.BookRequest(permit=early, request_id="5d9f2c62-6f0b-4d7c-9e58-0d2f5a7f9b11", slots=cls.slots[:1])
        try:
            asked(cls.server.booking.Book, request)
        except Refused as refused:
            cls.before_the_doors = refused.reason
        cls.server.doseline("room", "open", "spring-2031", "fifties", "--people-per-second", "50")
        cls.server.await_admitted(early)
        asked(cls.server.booking.Book, request)
        with urllib.request.urlopen(f"{cls.server.web}/", timeout=10) as board:
            cls.board = board.status
        # Nobody's terminal: refused.
        form = urllib.parse.urlencode({"credential": "nobody"}).encode()
        sign_in = urllib.request.Request(f"{cls.server.web}/clinic/sign-in", form, {"Origin": cls.server.web})
        try:
            urllib.request.urlopen(sign_in, timeout=10).close()
        except urllib.error.HTTPError as refused:
            cls.signed_in = refused.code
            refused.close()
        cls.metrics = cls.server.ready["metrics"]

    def shown(self):
        with urllib.request.urlopen(f"http://{self.metrics}/metrics", timeout=10) as answer:
            return answer.read().decode()

    def test_two_were_turned_away_first(self):
        self.assertEqual((self.malformed, self.before_the_doors), ("INVALID_REQUEST", "NOT_ADMITTED"))
        self.assertEqual((self.board, self.signed_in), (200, 401))

    def test_every_metric_and_label_that_is_asked_about_exists(self):
        shown = page(self.shown())
        recorded = {rule["record"]: set(rule["labels"]) for one in of_kind(everything(), "PrometheusRule")
                    for group in one["spec"]["groups"] for rule in group["rules"] if "record" in rule}
        count = 0
        for where, expression in questions():
            metrics, grouped = asks(expression)
            if not expression.startswith("vector("):
                self.assertTrue(metrics, f"{where} asks about nothing: {expression}")
            known = set(GIVEN_LABELS)
            for name, labels in metrics.items():
                with self.subTest(where, metric=name):
                    count += 1
                    exists = recorded.get(name, NOT_PROVOKED.get(name, set() if name in GIVEN_METRICS else shown.get(name)))
                    self.assertIsNotNone(exists, f"no process shows {name}")
                    self.assertEqual(labels - exists - GIVEN_LABELS, set(), "labels that the metric does not have")
                    known |= exists
            self.assertEqual(grouped - known, set(), f"{where} groups by labels that nothing has")
        self.assertGreater(count, 60)

    def test_what_is_not_provoked_is_registered_by_the_program(self):
        shown = page(self.shown())
        files = [*ROOT.glob("services/*/server/src/metrics.rs"), *ROOT.glob("services/*/src/metrics.rs")]
        source = "\n".join(path.read_text(encoding="utf-8") for path in files)
        for name in NOT_PROVOKED:
            self.assertNotIn(name, shown, "it is shown after all: take it off the list")
            short = name.removeprefix("doseline_").removesuffix("_total")
            self.assertRegex(source, rf'register\(\s*"{short}"')

    def test_every_metric_of_ours_is_in_a_rule_or_on_a_dashboard(self):
        used = {name for _, expression in questions() for name in asks(expression)[0]}
        stems = {re.sub(r"_(bucket|sum|count)$", "", name) for name in used}
        for name in page(self.shown()):
            if name.startswith("doseline_"):
                stem = re.sub(r"_(bucket|sum|count)$", "", name)
                self.assertIn(stem, stems | {"doseline_identity_group_people"}, f"nobody looks at {name}")

    def test_the_values_of_labels_are_those_that_the_program_uses(self):
        methods = set(re.findall(r'rpc_method="([^"]+)"', self.shown()))
        text = self.shown()
        for where, expression in questions():
            for wanted in re.findall(r'rpc_method=~?"([^"]+)"', expression):
                pattern = re.compile(wanted)
                offered = methods | {f"doseline.{area}.v1.{name}" for area, name in self.offered()}
                self.assertTrue([one for one in offered if pattern.fullmatch(one)], f"{where}: {wanted}")
            for wanted in re.findall(r'(?<!rpc_)\b(?:class|what)=~?"([^"]+)"', expression):
                for one in wanted.split("|"):
                    self.assertRegex(text, rf'(class|what)="{one}"', where)

    @staticmethod
    def offered():
        """(area, Service/Method) of the interfaces."""
        for path in (ROOT / "proto").rglob("*.proto"):
            text = path.read_text(encoding="utf-8")
            service = re.search(r"^service (\w+) \{(.*?)^\}", text, re.MULTILINE | re.DOTALL)
            if service:
                for method in re.findall(r"rpc (\w+)\(", service[2]):
                    yield path.parent.parent.name, f"{service[1]}/{method}"

    def test_probes_are_answered(self):
        for path, text in (("healthz", "alive"), ("readyz", "ready")):
            with urllib.request.urlopen(f"http://{self.metrics}/{path}", timeout=10) as answer:
                self.assertEqual((answer.status, answer.read().decode().strip()), (200, text))


class TestPod(unittest.TestCase):
    """The script of the `helm test` pod, as it was rendered, with the program on a developer's server."""

    @classmethod
    def setUpClass(cls):
        cls.server = Server()
        cls.addClassCleanup(cls.server.stop)
        cls.server.doseline("campaign", "apply", "campaign.json")
        cls.server.doseline("clinic", "apply", "clinics.json")
        cls.server.await_slots("seoul", 2)
        cls.server.doseline("room", "open", "spring-2031", "fifties")

    def script(self):
        objects = render(("values-dev.yaml",), ("test.campaign=spring-2031",))
        spec = next(spec for _, meta, spec in pods(objects) if role(meta["labels"]) == "test")
        box = spec["containers"][0]
        variables = {one["name"]: one["value"] for one in box["env"] if "value" in one}
        self.assertEqual(variables["DOSELINE_GATEWAY"], "night-gateway:7700")
        return [*box["command"], *box["args"]], variables

    def run_pod(self, sub):
        command, variables = self.script()
        told = self.server.environment()
        environment = {"PATH": told["PATH"], **variables, "DOSELINE_GATEWAY": self.server.gateway,
                       "DOSELINE_ASSERTION": self.server.assertion(sub)}
        return subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=60, check=False)

    def await_left(self, wanted):
        """Waits until the places left are shown as this; what is written is published a moment later."""
        until = time.monotonic() + WITHIN_SECS
        while time.monotonic() < until:
            left = {slot.name: slot.left for slot in self.server.await_slots("seoul", 2)}
            if left == wanted:
                return
            time.sleep(0.05)
        raise AssertionError(f"{left} is shown, not {wanted}")

    def test_it_books_and_gives_back_also_a_second_time(self):
        before = {slot.name: slot.left for slot in self.server.await_slots("seoul", 2)}
        self.server.await_admitted(self.server.permit("tester").permit)
        for _ in range(2):
            done = self.run_pod("tester")
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            self.assertRegex(done.stdout, r"booked regions/seoul/bookings/\S+ at regions/seoul/clinics/1168-0042/slots/\d and gave it back")
        self.await_left(before)

    def test_it_fails_where_nobody_is_believed(self):
        command, variables = self.script()
        environment = {"PATH": self.server.environment()["PATH"], **variables, "DOSELINE_GATEWAY": self.server.gateway,
                       "DOSELINE_ASSERTION": "not.an.assertion"}
        done = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=60, check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("ASSERTION_INVALID", done.stderr)

    def test_the_pod_is_run_by_helm_test_alone(self):
        for name in ("values.yaml", "values-ha.yaml"):
            found = [meta for _, meta, _ in pods(installation(name)) if role(meta["labels"]) == "test"]
            self.assertEqual([meta["annotations"]["helm.sh/hook"] for meta in found], ["test"])
        self.assertFalse([meta for _, meta, _ in pods(render(settings=("test.enabled=false",))) if role(meta["labels"]) == "test"])


if __name__ == "__main__":
    unittest.main()
