#!/usr/bin/env python3
"""Holds Cargo.lock against a stored list of security advisories, without a network.

usage: advisories.py Cargo.lock ADVISORIES.csv ALLOWED.toml

A version that is neither patched nor unaffected is affected. A vulnerability fails always. An advisory of another kind
(unmaintained, unsound, notice) is listed, and fails unless ALLOWED.toml gives a reason for its id. An entry there that
no longer applies fails as well, so that the list cannot rot. The advisories come from the RustSec database (CC0).

Pre-releases are judged on the safe side: 2.0.0-rc.1 is not yet 2.0.0 for `>=2.0.0`, and no longer below it for `<2.0.0`.
"""

import csv
import re
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

VERSION = re.compile(
    r"(?P<major>\d+)(?:\.(?P<minor>\d+))?(?:\.(?P<patch>\d+))?"
    r"(?:-(?P<pre>[0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]+)?$"
)
COMPARATOR = re.compile(r"(?P<op>>=|<=|>|<|=|\^|~)?\s*(?P<version>\S+)$")
KINDS = ("", "unmaintained", "unsound", "notice")
HEADER = ["id", "package", "date", "informational", "cvss", "patched", "unaffected", "aliases"]
RELEASE = (1,)
"""The pre-release part of a release: above every real one."""
LOWEST = (0,)
"""Below every pre-release of the same version."""


class Malformed(Exception):
    """An input that cannot be judged; never the same as a clean one."""


@dataclass(frozen=True)
class Package:
    name: str
    version: str


@dataclass(frozen=True)
class Advisory:
    id: str
    package: str
    kind: str
    patched: str
    unaffected: str

    def affects(self, version):
        return not (matches(self.patched, version) or matches(self.unaffected, version))


@dataclass(frozen=True)
class Finding:
    package: Package
    advisory: Advisory


def parse(text):
    """(numbers given, pre-release key) of a version that may leave out its last numbers."""
    found = VERSION.match(text)
    if not found:
        raise Malformed(f"not a version: {text!r}")
    numbers = [found[part] for part in ("major", "minor", "patch")]
    given = tuple(int(number) for number in numbers if number is not None)
    return given, precedence(found["pre"])


def precedence(pre):
    """Orders pre-releases as semver does: numbers below words, fewer parts below more."""
    if pre is None:
        return RELEASE
    parts = tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in pre.split("."))
    return (0, parts)


def full(given):
    return given + (0,) * (3 - len(given))


def bump(given, place):
    """The smallest numbers above all that agree with `given` up to `place`."""
    return full(given[:place] + (given[place] + 1,))


def caret_place(given):
    """Which number a compatible version may not change: the first that is not zero."""
    for place, number in enumerate(given):
        if number:
            return place
    return len(given) - 1


def bounds(comparator):
    """The half-open interval of a comparator, as keys; None is unbounded."""
    found = COMPARATOR.match(comparator)
    if not found:
        raise Malformed(f"not a comparator: {comparator!r}")
    op = found["op"] or "^"
    given, pre = parse(found["version"])
    exact = len(given) == 3
    low = (full(given), pre)
    # The first key after all versions that `given` names, 1.2 naming every 1.2.x.
    after = (full(given), pre + (LOWEST,)) if exact else (bump(given, len(given) - 1), LOWEST)
    match op:
        case ">=":
            return low, None
        case ">":
            return after, None
        case "<":
            return None, (low[0], LOWEST) if pre == RELEASE else low
        case "<=":
            return None, after
        case "=":
            return low, after
        case "^":
            return low, (bump(given, caret_place(given)), LOWEST)
        case "~":
            return low, (bump(given, min(1, len(given) - 1)), LOWEST)
    raise Malformed(f"not an operator: {op!r}")


def key(version):
    given, pre = parse(version)
    if len(given) != 3:
        raise Malformed(f"not a whole version: {version!r}")
    return given, pre


def matches(requirement, version):
    """Whether a version meets `a, b || c`: commas mean and, bars mean or; nothing meets an empty requirement."""
    at = key(version)
    for alternative in filter(None, (part.strip() for part in requirement.split("||"))):
        intervals = [bounds(comparator.strip()) for comparator in alternative.split(",")]
        if all((low is None or low <= at) and (high is None or at < high) for low, high in intervals):
            return True
    return False


def read_lock(text):
    """The packages of a Cargo.lock that come from elsewhere."""
    try:
        packages = tomllib.loads(text).get("package", [])
    except tomllib.TOMLDecodeError as error:
        raise Malformed(f"Cargo.lock: {error}") from error
    if not packages:
        raise Malformed("Cargo.lock names no package")
    return [Package(entry["name"], entry["version"]) for entry in packages if "source" in entry]


def read_advisories(lines):
    rows = csv.DictReader(lines)
    if rows.fieldnames != HEADER:
        raise Malformed(f"advisories: unexpected columns {rows.fieldnames}")
    advisories = []
    for row in rows:
        if row["informational"] not in KINDS:
            raise Malformed(f"{row['id']}: unknown kind {row['informational']!r}")
        advisory = Advisory(row["id"], row["package"], row["informational"], row["patched"], row["unaffected"])
        # Every requirement must be readable, whether or not its package is in use today.
        advisory.affects("0.0.0")
        advisories.append(advisory)
    if not advisories:
        raise Malformed("advisories: the list is empty")
    return advisories


def read_allowed(text):
    """id -> reason."""
    try:
        entries = tomllib.loads(text).get("allow", [])
    except tomllib.TOMLDecodeError as error:
        raise Malformed(f"allowed: {error}") from error
    allowed = {}
    for entry in entries:
        if set(entry) != {"id", "reason"} or len(entry["reason"].split()) < 3:
            raise Malformed(f"allowed: each entry has an id and a reason in words: {entry}")
        allowed[entry["id"]] = entry["reason"]
    return allowed


def find(packages, advisories):
    by_package = {}
    for advisory in advisories:
        by_package.setdefault(advisory.package, []).append(advisory)
    return [
        Finding(package, advisory)
        for package in packages
        for advisory in by_package.get(package.name, [])
        if advisory.affects(package.version)
    ]


def judge(findings, allowed):
    """(lines to print, whether all is well)."""
    lines, well = [], True
    for finding in findings:
        advisory, package = finding.advisory, finding.package
        what = f"{advisory.id} {package.name} {package.version}: {advisory.kind or 'vulnerability'}"
        reason = allowed.get(advisory.id)
        if not advisory.kind:
            well = False
            note = f"patched: {advisory.patched or 'none'}"
            if reason:
                note += "; a vulnerability cannot be allowed"
            lines.append(f"FAIL    {what} ({note})")
        elif reason:
            lines.append(f"allowed {what} ({reason})")
        else:
            well = False
            lines.append(f"FAIL    {what} (patched: {advisory.patched or 'none'}; or allow it with a reason)")
    for stale in sorted(set(allowed) - {finding.advisory.id for finding in findings}):
        well = False
        lines.append(f"FAIL    {stale} is allowed but does not apply any more: remove the entry")
    return lines, well


def main(arguments):
    if len(arguments) != 3:
        print(__doc__, file=sys.stderr)
        return 64
    lock, listed, allowed = (Path(argument) for argument in arguments)
    try:
        packages = read_lock(lock.read_text(encoding="utf-8"))
        advisories = read_advisories(listed.read_text(encoding="utf-8").splitlines())
        lines, well = judge(find(packages, advisories), read_allowed(allowed.read_text(encoding="utf-8")))
    except (Malformed, OSError, KeyError) as error:
        print(f"advisories: {error}", file=sys.stderr)
        return 1
    print("\n".join([*lines, f"{len(packages)} packages held against {len(advisories)} advisories"]))
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
