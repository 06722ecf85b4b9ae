"""Alerts fire when they must and not before, by Prometheus' own tool, and each leads to a paragraph that says what to do."""

import json
import re
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

import yaml

from rendered import CHART, everything, of_kind, render, render_values, tool

ALERTS = Path(__file__).parent / "alerts"
RULES_ON = "monitoring.rules.enabled=true"
# Windows a hundred times as short. As a file: `--set` makes a text of 0.01.
SCALED = {"monitoring": {"rules": {"enabled": True, "windowScale": 0.01}}}


def groups(objects):
    """The groups of all rules."""
    return [group for one in of_kind(objects, "PrometheusRule") for group in one["spec"]["groups"]]


def alerts(objects):
    """Every alert."""
    return [rule for group in groups(objects) for rule in group["rules"] if "alert" in rule]


def promtool(verb, objects, test=None):
    """(exit status, output) of `promtool VERB rules` over the rendered rules."""
    with tempfile.TemporaryDirectory(prefix="doseline-rules-") as folder:
        rules = Path(folder, "rules.yaml")
        rules.write_text(yaml.safe_dump({"groups": groups(objects)}), encoding="utf-8")
        file = rules if test is None else Path(shutil.copy(test, folder))
        done = subprocess.run([tool("promtool"), verb, "rules", str(file)], capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=120, check=False)
    return done.returncode, done.stdout + done.stderr


def anchors(text):
    """The names by which paragraphs of a Markdown file are linked."""
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return [re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in titles]


class Rules(unittest.TestCase):
    def test_prometheus_takes_the_rules(self):
        for objects in (everything(), render(("values-ha.yaml",)), render_values(SCALED)):
            status, said = promtool("check", objects)
            self.assertEqual(status, 0, said)
            self.assertRegex(said, r"SUCCESS: [1-9][0-9] rules found")

    def test_alerts_fire_when_they_must_and_not_before(self):
        objects = render(settings=(RULES_ON,))
        for file in sorted(ALERTS.glob("*.yaml")):
            if file.name != "scaled.yaml":
                with self.subTest(file.name):
                    status, said = promtool("test", objects, file)
                    self.assertEqual(status, 0, said)

    def test_scaled_windows_make_an_alert_fire_within_minutes(self):
        status, said = promtool("test", render_values(SCALED), ALERTS / "scaled.yaml")
        self.assertEqual(status, 0, said)

    def test_every_alert_is_seen_firing_and_silent(self):
        fires, silent = set(), set()
        for file in ALERTS.glob("*.yaml"):
            for case in yaml.safe_load(file.read_text(encoding="utf-8"))["tests"]:
                for check in case["alert_rule_test"]:
                    (fires if check.get("exp_alerts") else silent).add(check["alertname"])
        names = {rule["alert"] for rule in alerts(everything())}
        self.assertEqual((names - fires, names - silent), (set(), set()))
        self.assertEqual((fires | silent) - names, set(), "a test of an alert that is not there")

    def test_every_region_has_its_number_of_shards(self):
        rules = [rule for group in groups(render(("values-ha.yaml",))) for rule in group["rules"]]
        shards = {rule["labels"]["region"]: rule["expr"] for rule in rules if rule.get("record") == "doseline:region:shards"}
        self.assertEqual(shards, {"seoul": "vector(16)", "gyeonggi": "vector(16)", "busan": "vector(8)", "jeju": "vector(2)"})


class Runbooks(unittest.TestCase):
    def test_every_alert_names_a_paragraph_that_exists(self):
        for rule in alerts(everything()):
            with self.subTest(rule["alert"]):
                self.assertIn(rule["labels"]["severity"], ("page", "ticket"))
                file, anchor = rule["annotations"]["runbook"].split("#")
                text = (CHART / "runbooks" / file).read_text(encoding="utf-8")
                self.assertIn(anchor, anchors(text))
                self.assertEqual(rule["annotations"]["runbook_url"], f"https://example.org/runbooks/{file}#{anchor}")

    def test_the_paragraph_names_its_alert(self):
        for rule in alerts(everything()):
            file = rule["annotations"]["runbook"].split("#")[0]
            self.assertIn(f"`{rule['alert']}`", (CHART / "runbooks" / file).read_text(encoding="utf-8"))

    def test_links_between_documents_lead_somewhere(self):
        for file in [CHART / "README.md", *sorted((CHART / "runbooks").glob("*.md"))]:
            for target in re.findall(r"\]\(([^)]+)\)", file.read_text(encoding="utf-8")):
                if "://" in target:
                    continue
                with self.subTest(file.name, link=target):
                    path, _, anchor = target.partition("#")
                    linked = file.parent / path if path else file
                    self.assertTrue(linked.exists())
                    if anchor:
                        self.assertIn(anchor, anchors(linked.read_text(encoding="utf-8")))


class Dashboards(unittest.TestCase):
    def test_dashboards_are_mounted_as_they_are(self):
        shown = {}
        for one in of_kind(everything(), "ConfigMap"):
            for name, text in one["data"].items():
                if name.endswith(".json"):
                    shown[name] = json.loads(text)
        files = {f"doseline-{path.name}": json.loads(path.read_text(encoding="utf-8")) for path in (CHART / "dashboards").iterdir()}
        self.assertEqual(shown, files)
        self.assertEqual(sorted(shown), ["doseline-booking.json", "doseline-ownership.json", "doseline-room.json"])

    def test_panels_have_names_places_and_questions(self):
        for path in (CHART / "dashboards").iterdir():
            board = json.loads(path.read_text(encoding="utf-8"))
            variables = {one["name"] for one in board["templating"]["list"]}
            self.assertEqual(variables, {"datasource", "namespace", "release"})
            self.assertEqual(len({panel["id"] for panel in board["panels"]}), len(board["panels"]))
            taken = set()
            for panel in board["panels"]:
                place = panel["gridPos"]
                cells = {(x, y) for x in range(place["x"], place["x"] + place["w"])
                         for y in range(place["y"], place["y"] + place["h"])}
                self.assertFalse(cells & taken, f"{path.name}: {panel['title']} covers another")
                taken |= cells
                for target in panel["targets"]:
                    self.assertIn('namespace="$namespace",release="$release"', target["expr"], panel["title"])


if __name__ == "__main__":
    unittest.main()
