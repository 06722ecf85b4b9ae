#!/usr/bin/env python3
"""Counts the tests in the output of a step of ./dev.

usage: count.py EXIT_STATUS LOG

Prints "PASSED FAILED". Knows the summaries of nextest, of libtest (documentation examples) and of unittest. A step
without any, such as a formatter, counts as one. A step that ended badly counts at least one failure, whatever it says.
"""

import re
import sys
from pathlib import Path

ANSI = re.compile(r"\x1b\[[0-9;]*m")
NEXTEST = re.compile(r"^\s*Summary \[[^]]*\] +(?:\d+/)?\d+ tests? run: (?P<parts>.*)$", re.MULTILINE)
LIBTEST = re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed;", re.MULTILINE)
UNITTEST = re.compile(r"^Ran (\d+) tests? in .*$\s+^(?:OK|FAILED|NO TESTS RAN)(?: \((?P<parts>.*)\))?$", re.MULTILINE)


def number(parts, word):
    found = re.search(rf"(\d+) {word}", parts)
    return int(found[1]) if found else 0


def setting(parts, word):
    found = re.search(rf"{word}=(\d+)", parts)
    return int(found[1]) if found else 0


def count(status, text):
    """(passed, failed)"""
    text = ANSI.sub("", text)
    passed = failed = 0
    for found in NEXTEST.finditer(text):
        passed += number(found["parts"], "passed")
        failed += sum(number(found["parts"], word) for word in ("failed", "timed out", "exec failed"))
    for found in LIBTEST.finditer(text):
        passed += int(found[1])
        failed += int(found[2])
    for found in UNITTEST.finditer(text):
        parts = found["parts"] or ""
        bad = sum(setting(parts, rf"(?<!expected ){word}") for word in ("failures", "errors", "unexpected successes"))
        # Finding nothing to run is no success, though older versions end well.
        failed += bad or int(found[1] == "0")
        passed += int(found[1]) - bad - sum(setting(parts, word) for word in ("skipped", "expected failures"))
    if status and not failed:
        failed = 1
    if not status and not passed and not failed:
        passed = 1
    return passed, failed


def main(arguments):
    status, log = arguments
    passed, failed = count(int(status), Path(log).read_text(encoding="utf-8", errors="replace"))
    print(passed, failed)


if __name__ == "__main__":
    main(sys.argv[1:])
