"""The program's audit of leftovers and one that shares no line with it agree on what holds and on every cheat."""

import copy
import hashlib
import json
import random
import subprocess
import tempfile
import unittest
from pathlib import Path

from leftovers_audit import Wrong, check, order_of
from test_audit import built

SECOND = 1_000_000


def a_round(people, doses, chance):
    """A round of one dose after the other, offered and ended by chance."""
    key = {"campaign": "spring-2031", "clinic": "1168-0042", "round": chance.randrange(1, 1 << 40)}
    seed = chance.randbytes(32)
    root, order = order_of(key, seed, [chance.randbytes(16) for _ in range(people)])
    now, free, ends, places = 100 * SECOND, doses, [], []
    for ticket in order:
        place = {"ticket": ticket.hex(), "state": "WAITING", "offered_at": None, "deadline": None, "ended_at": None}
        places.append(place)
        if free == 0 and ends:
            now, free = ends.pop(0), 1
        if free == 0:
            continue
        state = chance.choice(["ACCEPTED", "DECLINED", "EXPIRED", "LEFT", "PASSED"])
        if state == "PASSED":
            place.update(state=state, ended_at=now)
            continue
        deadline = now + 60 * SECOND
        ended = deadline + 7 if state == "EXPIRED" else now + chance.randrange(1, 59 * SECOND)
        place.update(state=state, offered_at=now, deadline=deadline, ended_at=ended)
        free -= 1
        if state != "ACCEPTED":
            ends = sorted([*ends, ended])
    return {
        "key": key, "doses": doses, "commitment": hashlib.sha256(seed).hexdigest(), "seed": seed.hex(),
        "list_root": root.hex(), "candidates": people, "places": places,
    }


def cheats(good):
    """Documents that do not hold, each by what was done to it."""
    def but(name, change):
        document = copy.deepcopy(good)
        change(document)
        return name, document

    def swap(document):
        first, second = document["places"][:2]
        first["ticket"], second["ticket"] = second["ticket"], first["ticket"]

    yield but("another seed", lambda d: d.update(seed="00" * 32))
    yield but("another round", lambda d: d["key"].update(round=d["key"]["round"] + 1))
    yield but("another clinic", lambda d: d["key"].update(clinic="1168-0043"))
    yield but("two changed places", swap)
    yield but("somebody is missing", lambda d: d["places"].pop())
    yield but("somebody twice", lambda d: d["places"][1].update(ticket=d["places"][0]["ticket"]))
    yield but("fewer doses than people", lambda d: d.update(doses=1))
    yield but("jumped", lambda d: d["places"][0].update(state="WAITING", offered_at=None, ended_at=None))


class TheAudits(unittest.TestCase):
    def program(self, document):
        with tempfile.TemporaryDirectory(prefix="doseline-leftovers-") as folder:
            file = Path(folder) / "round.json"
            file.write_text(json.dumps(document), encoding="utf-8")
            asked = [built("doseline"), "clinic", "leftovers", "audit", file]
            return subprocess.run(asked, capture_output=True, text=True, check=False, timeout=60)

    def test_both_agree_on_rounds_that_hold_and_on_every_cheat(self):
        chance, seen = random.Random(20_310_310), 0
        for people, doses in [(0, 1), (1, 1), (2, 3), (9, 2), (300, 9), (1_000, 40)]:
            good = a_round(people, doses, chance)
            with self.subTest(people=people):
                listed, offered, accepted = check(good)
                told = self.program(good)
                self.assertEqual(told.returncode, 0, told.stderr)
                self.assertIn(f"{listed} candidates, {doses} doses, {offered} offered", told.stdout)
                self.assertIn(f"{accepted} accepted", told.stdout)
            if people < 9:
                continue
            for name, bad in cheats(good):
                with self.subTest(name, people=people):
                    self.assertRaises(Wrong, check, bad)
                    told = self.program(bad)
                    self.assertEqual(told.returncode, 1, name)
                    self.assertIn("the round does not hold", told.stderr)
                    seen += 1
        self.assertEqual(seen, 24)


if __name__ == "__main__":
    unittest.main()
