"""What advisories.py must catch, with made-up lock files."""

import contextlib
import io
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import advisories  # noqa: E402

HERE = Path(__file__).parent
LISTED = HERE.parent / "data" / "rust-advisories-2026-08-21.csv"
HEADER = ",".join(advisories.HEADER)
SOURCE = 'source = "registry+https://github.com/rust-lang/crates.io-index"'


def lock(*packages):
    entries = [f'[[package]]\nname = "{name}"\nversion = "{version}"\n{SOURCE}\n' for name, version in packages]
    return "version = 4\n\n" + "\n".join(entries)


def run(lock_text, csv_text, allowed_text=""):
    """Exit status and output of the whole program."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("Cargo.lock", "list.csv", "allowed.toml")]
        for path, text in zip(paths, (lock_text, csv_text, allowed_text), strict=True):
            path.write_text(text, encoding="utf-8")
        output = io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            status = advisories.main([str(path) for path in paths])
    return status, output.getvalue()


class Requirements(unittest.TestCase):
    def test_tables(self):
        table = [
            # requirement, versions that meet it, versions that do not
            (">=1.2.3", ["1.2.3", "1.10.0", "2.0.0-rc.1"], ["1.2.2", "1.2.3-rc.1", "0.9.9"]),
            (">= 1.2", ["1.2.0", "1.3.0"], ["1.1.9", "1.2.0-a"]),
            (">1.2.3", ["1.2.4", "1.2.4-a"], ["1.2.3", "1.2.3-z"]),
            (">1.2", ["1.3.0"], ["1.2.9", "1.2.0"]),
            ("<1.2.3", ["1.2.2", "0.1.0"], ["1.2.3", "1.2.3-rc.1", "1.3.0"]),
            ("<1.2.3-rc.2", ["1.2.3-rc.1", "1.2.2"], ["1.2.3-rc.2", "1.2.3-rc.10", "1.2.3"]),
            ("<=1.2.3", ["1.2.3", "1.2.3+build.5"], ["1.2.4", "1.2.4-a"]),
            ("<=1.2", ["1.2.9", "1.2.0"], ["1.3.0", "1.3.0-a"]),
            ("=1.2.3", ["1.2.3"], ["1.2.4", "1.2.2", "1.2.3-a"]),
            ("=1.2", ["1.2.0", "1.2.9"], ["1.3.0", "1.1.0"]),
            ("^1.2.3", ["1.2.3", "1.9.0"], ["1.2.2", "2.0.0", "2.0.0-a"]),
            ("1.2.3", ["1.9.9"], ["2.0.0"]),
            ("^0.2.3", ["0.2.9"], ["0.3.0", "0.2.2", "1.0.0"]),
            ("^0.0.3", ["0.0.3"], ["0.0.4", "0.0.2"]),
            ("^0.0", ["0.0.9"], ["0.1.0"]),
            ("^0", ["0.9.0"], ["1.0.0"]),
            ("~1.2.3", ["1.2.9"], ["1.3.0", "1.2.2"]),
            ("~1.2", ["1.2.0"], ["1.3.0"]),
            ("~1", ["1.9.0"], ["2.0.0"]),
            (">=1.0.0, <1.3.0", ["1.2.9"], ["0.9.0", "1.3.0"]),
            (">=1.0.3, <1.1.0 || >=1.2.0", ["1.0.3", "1.2.0"], ["1.0.2", "1.1.0"]),
            ("", [], ["0.0.0", "99.0.0"]),
        ]
        for requirement, yes, no in table:
            for version in yes:
                self.assertTrue(advisories.matches(requirement, version), f"{version} meets {requirement!r}")
            for version in no:
                self.assertFalse(advisories.matches(requirement, version), f"{version} does not meet {requirement!r}")

    def test_pre_releases_are_ordered_as_semver_orders_them(self):
        order = ["1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2", "1.0.0-beta.11",
                 "1.0.0-rc.1", "1.0.0"]
        self.assertEqual(sorted(order[::-1], key=advisories.key), order)

    def test_nonsense_is_refused(self):
        for requirement in ("*", ">=x", ">= 1.2.3.4", "!1.0.0", "1.0.0,"):
            with self.assertRaises(advisories.Malformed, msg=requirement):
                advisories.matches(requirement, "1.0.0")


class Locks(unittest.TestCase):
    listed = "\n".join([
        HEADER,
        "RUSTSEC-2026-0001,leaky,2026-01-01,,,\">=1.0.3, <1.1.0 || >=1.1.2\",<0.5.0,CVE-1",
        "RUSTSEC-2026-0002,hopeless,2026-01-01,,,,,",
        "RUSTSEC-2026-0003,lonely,2026-01-01,unmaintained,,,,",
        "RUSTSEC-2026-0004,shaky,2026-01-01,unsound,,>=2.0.0,,",
    ])

    def test_a_vulnerable_version_fails_and_is_named(self):
        status, output = run(lock(("leaky", "1.1.0"), ("fine", "1.0.0")), self.listed)
        self.assertEqual(status, 1)
        self.assertIn("RUSTSEC-2026-0001 leaky 1.1.0: vulnerability", output)
        self.assertNotIn("fine", output)

    def test_patched_and_unaffected_versions_pass(self):
        for version in ("1.0.3", "1.1.2", "2.0.0", "0.4.9"):
            self.assertEqual(run(lock(("leaky", version)), self.listed)[0], 0, version)

    def test_one_bad_copy_among_good_ones_fails(self):
        self.assertEqual(run(lock(("leaky", "1.1.2"), ("leaky", "1.0.2")), self.listed)[0], 1)

    def test_no_patch_at_all_fails(self):
        status, output = run(lock(("hopeless", "9.9.9")), self.listed)
        self.assertEqual(status, 1)
        self.assertIn("patched: none", output)

    def test_a_vulnerability_cannot_be_allowed(self):
        allowed = '[[allow]]\nid = "RUSTSEC-2026-0002"\nreason = "we are very brave"\n'
        self.assertEqual(run(lock(("hopeless", "1.0.0")), self.listed, allowed)[0], 1)

    def test_other_kinds_fail_without_a_reason_and_pass_with_one(self):
        both = lock(("lonely", "1.0.0"), ("shaky", "1.0.0"))
        status, output = run(both, self.listed)
        self.assertEqual(status, 1)
        self.assertEqual(output.count("FAIL"), 2)
        allowed = "".join(
            f'[[allow]]\nid = "RUSTSEC-2026-000{number}"\nreason = "used in tests only"\n' for number in (3, 4)
        )
        status, output = run(both, self.listed, allowed)
        self.assertEqual((status, output.count("allowed")), (0, 2), output)

    def test_an_entry_that_no_longer_applies_fails(self):
        allowed = '[[allow]]\nid = "RUSTSEC-2026-0003"\nreason = "used in tests only"\n'
        status, output = run(lock(("fine", "1.0.0")), self.listed, allowed)
        self.assertEqual(status, 1)
        self.assertIn("RUSTSEC-2026-0003", output)

    def test_an_entry_without_a_reason_fails(self):
        allowed = '[[allow]]\nid = "RUSTSEC-2026-0003"\nreason = "ok"\n'
        self.assertEqual(run(lock(("lonely", "1.0.0")), self.listed, allowed)[0], 1)

    def test_our_own_crates_are_not_mistaken_for_published_ones(self):
        own = '\n[[package]]\nname = "hopeless"\nversion = "0.1.0"\n'
        self.assertEqual(run(lock(("fine", "1.0.0")) + own, self.listed)[0], 0)

    def test_inputs_that_cannot_be_judged_fail(self):
        good = lock(("fine", "1.0.0"))
        self.assertEqual(run("version = 4\n", self.listed)[0], 1, "an empty lock")
        self.assertEqual(run("][", self.listed)[0], 1, "a broken lock")
        self.assertEqual(run(good, HEADER)[0], 1, "an empty list")
        self.assertEqual(run(good, "id,package\nx,y")[0], 1, "other columns")
        self.assertEqual(run(good, f"{HEADER}\nA,fine,,rumour,,,,")[0], 1, "an unknown kind")
        self.assertEqual(run(good, f"{HEADER}\nA,other,,,,>=*,,")[0], 1, "an unreadable requirement")
        self.assertEqual(run(good, self.listed, "][")[0], 1, "a broken allow list")
        self.assertEqual(advisories.main(["/nowhere/Cargo.lock", str(LISTED), str(LISTED)]), 1)


class StoredList(unittest.TestCase):
    """The real list, with versions known to be bad or good."""

    listed = LISTED.read_text(encoding="utf-8")

    def test_known_versions(self):
        # RUSTSEC-2020-0105: abi_stable is patched from 0.9.1 on.
        self.assertEqual(run(lock(("abi_stable", "0.9.0")), self.listed)[0], 1)
        self.assertEqual(run(lock(("abi_stable", "0.9.1")), self.listed)[0], 0)

    def test_every_row_is_read(self):
        rows = advisories.read_advisories(self.listed.splitlines())
        self.assertEqual(len(rows), 1192)
        self.assertEqual(sum(row.kind == "" for row in rows), 726)


if __name__ == "__main__":
    unittest.main()
