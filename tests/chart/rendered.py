"""The chart as the real `helm` renders it, and what can be asked of the objects.

Invariant: nothing here is a copy of a template; whatever is judged was printed by helm.
"""

import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "doseline"
RELEASE = "night"
NAMESPACE = "seoul-1"

# The files as they are laid over each other by the README.
INSTALLATIONS = {
    "values.yaml": (),
    "values-ha.yaml": ("values-ha.yaml",),
    "values-dev.yaml": ("values-dev.yaml",),
}

# Everything that is off in the smallest installation.
ALL_ON = (
    "monitoring.podMonitor.enabled=true", "monitoring.rules.enabled=true", "monitoring.dashboards.enabled=true",
    "gateway.autoscaling.enabled=true", "callers.jwksConfigMap=callers", "image.pullSecrets={registry}",
    "telemetry.otlpEndpoint=http://127.0.0.1:4317", "monitoring.rules.runbookBase=https://example.org/runbooks",
)

ROLES = ("gateway", "inventory", "identity")


class HelmFailed(Exception):
    """What helm said instead of rendering."""


def tool(name):
    """A program that ./dev installs; that there is none is a failure."""
    target = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
    ours = target / "tools" / "bin" / name
    found = str(ours) if ours.is_file() else shutil.which(name)
    if found is None:
        raise AssertionError(f"there is no {name}: ./dev test installs it")
    return found


def helm(*arguments):
    """What helm prints; raises what it says when it fails. It finds no cluster and keeps nothing."""
    with tempfile.TemporaryDirectory(prefix="doseline-helm-") as home:
        environment = {"HOME": home, "PATH": os.environ["PATH"], "KUBECONFIG": f"{home}/none"}
        done = subprocess.run([tool("helm"), *arguments], capture_output=True, text=True, env=environment,
                              stdin=subprocess.DEVNULL, timeout=120, check=False)
    if done.returncode != 0:
        raise HelmFailed(done.stdout + done.stderr)
    return done.stdout


def flags(files, settings=(), values=None):
    """Arguments that lay files, single settings and a text of values over the chart's own."""
    arguments = []
    for name in files:
        arguments += ["--values", str(CHART / name)]
    if values is not None:
        arguments += ["--values", str(values)]
    for setting in settings:
        arguments += ["--set", setting]
    return arguments


def render(files=(), settings=(), values=None):
    """All objects, as helm prints them."""
    text = helm("template", RELEASE, str(CHART), "--namespace", NAMESPACE, *flags(files, settings, values))
    return [one for one in yaml.safe_load_all(text) if one]


def render_values(values):
    """All objects with these values (a mapping) laid over the chart's own."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as file:
        yaml.safe_dump(values, file)
        file.flush()
        return render(values=file.name)


@functools.cache
def installation(name):
    """An installation's objects. Not to be changed."""
    return tuple(render(INSTALLATIONS[name]))


@functools.cache
def everything():
    """The smallest installation with all that can be turned on. Not to be changed."""
    return tuple(render(settings=ALL_ON))


def cases():
    """Every set of objects that must be sound, by name."""
    return {**{name: installation(name) for name in INSTALLATIONS}, "all on": everything()}


def of_kind(objects, *kinds):
    """Those of some kinds."""
    return [one for one in objects if one["kind"] in kinds]


def workloads(objects):
    """What runs our processes."""
    return of_kind(objects, "Deployment", "StatefulSet")


def pods(objects):
    """(name, metadata, spec) of every pod that an object makes."""
    found = []
    for one in objects:
        if one["kind"] == "Pod":
            found.append((one["metadata"]["name"], one["metadata"], one["spec"]))
        elif one["kind"] in ("Deployment", "StatefulSet"):
            template = one["spec"]["template"]
            found.append((one["metadata"]["name"], template["metadata"], template["spec"]))
    return found


def role(labels):
    """The role that labels name."""
    return labels.get("app.kubernetes.io/component")


def selects(selector, labels):
    """Whether a label selector (matchLabels, matchExpressions) finds these labels."""
    for rule in selector.get("matchExpressions", ()):
        if rule["operator"] != "In":
            raise AssertionError(f"the tests do not know the operator {rule['operator']}")
        if labels.get(rule["key"]) not in rule["values"]:
            return False
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


def label(one):
    """How messages name an object."""
    return f"{one['kind']}/{one['metadata']['name']}"
