"""Two audits that share no line of code come to the same verdict, and to the same place for everybody."""

import os
import subprocess
import tempfile
import unittest
from pathlib import Path

from audit import Audit, Wrong, good_key, merkle_root, signed_by

ROOT = Path(__file__).resolve().parents[2]

# RFC 8032, 7.1: public key, message, signature.
VECTORS = [
    ("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", "",
     "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd"
     "25bf5f0595bbe24655141438e7a100b"),
    ("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", "72",
     "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c3"
     "87b2eaeb4302aeeb00d291612bb0c00"),
]


def built(*names):
    """A program that the build made."""
    target = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
    given = os.environ.get("DOSELINE_BIN") if names == ("doseline",) else None
    candidates = [Path(given)] if given else [target / kind / Path(*names) for kind in ("debug", "release")]
    for candidate in candidates:
        if candidate.is_file():
            return candidate.resolve()
    raise AssertionError(f"there is no {'/'.join(names)} at {' or '.join(map(str, candidates))}: build it first")


class TheAudits(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.program = built("doseline")
        scratch = tempfile.TemporaryDirectory(prefix="doseline-audit-")
        cls.addClassCleanup(scratch.cleanup)
        cls.folder = Path(scratch.name)
        subprocess.run([built("examples", "room_bundle"), cls.folder], check=True)
        cls.good = sorted(cls.folder.glob("good-*"))
        cls.bad = sorted(cls.folder.glob("bad-*"))

    def doseline(self, folder, *more):
        asked = [self.program, "room", "audit", folder, *more]
        return subprocess.run(asked, capture_output=True, text=True, check=False, timeout=60)

    def test_every_place_is_the_same_in_both(self):
        self.assertGreaterEqual(len(self.good), 5)
        compared = 0
        for folder in self.good:
            with self.subTest(folder.name):
                out = self.folder / f"{folder.name}.txt"
                told = self.doseline(folder, "--ordinals", out)
                self.assertEqual(told.returncode, 0, told.stdout + told.stderr)
                ours = [f"{number} {ticket.hex()} {place}" for number, ticket, place in Audit(folder).ordinals()]
                self.assertEqual(out.read_text(encoding="utf-8").splitlines(), ours)
                compared += len(ours)
        self.assertGreater(compared, 900)

    def test_both_refuse_every_cheat(self):
        self.assertGreaterEqual(len(self.bad), 20)
        for folder in self.bad:
            with self.subTest(folder.name):
                told = self.doseline(folder)
                self.assertEqual(told.returncode, 1, told.stdout)
                self.assertIn("does NOT hold", told.stdout)
                with self.assertRaises(Wrong):
                    Audit(folder)

    def test_a_ticket_is_told_its_place(self):
        folder = self.folder / "good-late"
        audit = Audit(folder)
        ticket = audit.lists[1][5]
        told = self.doseline(folder, "--ticket", ticket.hex(), "--bucket", "1")
        self.assertEqual(told.returncode, 0, told.stderr)
        self.assertIn(f"ordinal {audit.ordinal(1, ticket)} (bucket 1, at index 5", told.stdout)
        self.assertEqual(self.doseline(folder, "--ticket", "00" * 16).returncode, 1, "not in the list")

    def test_missing_documents_prove_nothing(self):
        for name in ("steps.jsonl", "buckets.jsonl", "room.jsonl", "tickets-0.txt", "keys.json"):
            with self.subTest(name):
                kept = (self.folder / "good-plain" / name).read_bytes()
                for left in (None, b""):
                    path = self.folder / "good-plain" / name
                    path.unlink() if left is None else path.write_bytes(left)
                    self.assertEqual(self.doseline(self.folder / "good-plain").returncode, 1)
                    with self.assertRaises((Wrong, OSError)):
                        Audit(self.folder / "good-plain")
                    path.write_bytes(kept)


class TheArithmetic(unittest.TestCase):
    def test_published_signatures_hold_and_changed_ones_do_not(self):
        for key, message, signature in VECTORS:
            key, message, signature = map(bytes.fromhex, (key, message, signature))
            self.assertTrue(good_key(key) and signed_by(key, message, signature))
            self.assertFalse(signed_by(key, message + b"x", signature))
            for at in (0, 31, 32, 63):
                changed = bytearray(signature)
                changed[at] ^= 1
                self.assertFalse(signed_by(key, message, bytes(changed)), at)

    def test_keys_of_small_order_are_refused(self):
        for bad in (bytes(32), b"\1" + bytes(31), b"\xff" * 32):
            self.assertFalse(good_key(bad))

    def test_published_roots_come_out_the_same(self):
        leaves = [bytes.fromhex(leaf) for leaf in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657")]
        roots = {
            0: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            3: "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            7: "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        }
        for count, root in roots.items():
            self.assertEqual(merkle_root(leaves[:count]).hex(), root)


if __name__ == "__main__":
    unittest.main()
