#!/usr/bin/env python3
"""Checks a room's draw from its published documents alone. Standard library only; no line shared with Doseline itself.

Usage: audit.py FOLDER [--ticket HEX] [--bucket N] [--ordinals FILE]
Exit status 0: the documents hold. 1: they do not.

Invariant: what is not proven by a document signed with a key of keys.json is not believed.
"""

import argparse
import base64
import hashlib
import hmac
import json
import re
import sys
from pathlib import Path

U32, U64 = 1 << 32, 1 << 64
SLUG = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
HASH = re.compile(r"[0-9a-f]{64}")
LENGTH_MAX = 256 * 1024
STEPS = ["COMMIT", "FREEZE", "REVEAL", "BEACON", "DOORS"]
PHASES = {"LOBBY": 0, "FROZEN": 1, "DRAWN": 2, "OPEN": 3, "PAUSED": 3, "EXHAUSTED": 3, "ENDED": 4}
REASONS = {"NOT_OPEN", "BUCKET_OPEN", "SLOWED", "PRESENCE", "CEILING", "SUPPLY", "EXHAUSTED", "PAUSED", "ENDED"}
ZERO = bytes(32)


class Wrong(Exception):
    """What does not hold, in words."""


def need(holds, problem):
    if not holds:
        raise Wrong(problem)


def sha256(data):
    return hashlib.sha256(data).digest()


# === Ed25519 verification (RFC 8032, 5.1), in affine-free extended coordinates ===

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
ROOT = pow(2, (P - 1) // 4, P)
NEUTRAL = (0, 1, 1, 0)


def add(a, b):
    (x1, y1, z1, t1), (x2, y2, z2, t2) = a, b
    e1, e2 = (y1 - x1) * (y2 - x2) % P, (y1 + x1) * (y2 + x2) % P
    c, d = 2 * t1 * t2 * D % P, 2 * z1 * z2 % P
    e, f, g, h = e2 - e1, d - c, d + c, e2 + e1
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def times(scalar, point):
    total = NEUTRAL
    while scalar:
        if scalar & 1:
            total = add(total, point)
        point = add(point, point)
        scalar >>= 1
    return total


def equal(a, b):
    return (a[0] * b[2] - b[0] * a[2]) % P == 0 and (a[1] * b[2] - b[1] * a[2]) % P == 0


def decode_point(data):
    """A point from its one canonical encoding, or None."""
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & ((1 << 255) - 1)
    if y >= P:
        return None
    x2 = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(x2, (P + 3) // 8, P)
    if (x * x - x2) % P:
        x = x * ROOT % P
    if (x * x - x2) % P or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = P - x
    return (x, y, 1, x * y % P)


BASE = decode_point((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))


def good_key(data):
    """A key in the group of prime order, not the neutral element."""
    point = decode_point(data)
    return point is not None and not equal(point, NEUTRAL) and equal(times(L, point), NEUTRAL)


def signed_by(key, message, signature):
    """Strict: canonical encodings, no point of small order, the equation without its cofactor."""
    a, r = decode_point(key), decode_point(signature[:32])
    s = int.from_bytes(signature[32:], "little")
    if a is None or r is None or s >= L or equal(times(8, r), NEUTRAL):
        return False
    k = int.from_bytes(hashlib.sha512(signature[:32] + key + message).digest(), "little") % L
    return equal(times(s, BASE), add(r, times(k, a)))


# === Signed documents: PASETO v4.public with the key's id in the footer ===


def unbase64(text):
    need(re.fullmatch(r"[A-Za-z0-9_-]*", text) and len(text) % 4 != 1, "is not base64url")
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    need(base64.urlsafe_b64encode(data).rstrip(b"=").decode() == text, "is not base64url in its one spelling")
    return data


def pae(pieces):
    return len(pieces).to_bytes(8, "little") + b"".join(len(p).to_bytes(8, "little") + p for p in pieces)


def no_duplicates(pairs):
    found = dict(pairs)
    need(len(found) == len(pairs), "names a field twice")
    return found


def parse(data):
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=no_duplicates)
    except ValueError:
        raise Wrong("is not JSON") from None


def opened(keys, text, purpose):
    """The message of a signed text, parsed."""
    need(len(text.encode()) <= LENGTH_MAX and text.startswith("v4.public."), "is not a v4.public text")
    parts = text[len("v4.public."):].split(".")
    need(len(parts) == 2, "is not a v4.public text")
    payload, footer = map(unbase64, parts)
    kid = fields(parse(footer), {"kid": str})["kid"]
    need(kid in keys, "is signed with an unknown key")
    need(len(payload) >= 64, "is too short")
    message, signature = payload[:-64], payload[-64:]
    signed = pae([b"v4.public.", message, footer, purpose.encode()])
    need(signed_by(keys[kid], signed, signature), "has a signature that does not hold")
    return parse(message)


# === Shapes: every field known, of its type, in its bounds ===


def integer(low, high):
    def check(value):
        need(type(value) is int and low <= value < high, "has a number out of bounds")
        return value
    return check


u32, u64, micros = integer(0, U32), integer(0, U64), integer(-(1 << 63), 1 << 63)


def slug(value):
    need(type(value) is str and SLUG.fullmatch(value), "has a malformed id")
    return value


def digest(value):
    need(type(value) is str and HASH.fullmatch(value), "has a malformed hash")
    return bytes.fromhex(value)


def one_of(words):
    def check(value):
        need(type(value) is str and value in words, "has an unknown word")
        return value
    return check


def by_region(shape):
    def check(value):
        need(type(value) is dict, "has malformed regions")
        return {slug(region): shape(inner) for region, inner in value.items()}
    return check


def fields(value, required, optional=None):
    """The fields of an object; those that are missing but may be are None."""
    optional = optional or {}
    need(type(value) is dict, "is not an object")
    need(value.keys() <= required.keys() | optional.keys(), "has a field that nobody knows")
    need(required.keys() <= value.keys(), "lacks a field")
    found = {name: None for name in optional}
    for name, inner in value.items():
        if inner is None and name in optional:
            continue
        shape = required.get(name) or optional[name]
        if shape is str:
            need(type(inner) is str, "has a field of the wrong type")
            found[name] = inner
        else:
            found[name] = shape(inner)
    return found


def announcement(value):
    return fields(value, {"source": str, "round": str}, {"published_at": micros})


def commit(value):
    return fields(
        value,
        {"seed_hash": digest, "beacon": announcement, "reveal_by": micros, "code_version": str},
        {"second": announcement},
    )


def freeze(value):
    return fields(value, {"list_root": digest, "n0": u64, "regions": by_region(u64)})


def beacon(value):
    return fields(value, {"source": str, "round": str, "value": str})


BODIES = {
    "COMMIT": commit,
    "FREEZE": freeze,
    "REVEAL": lambda value: fields(value, {"seed": digest}),
    "BEACON": beacon,
    "DOORS": lambda value: fields(value, {"final_seed": digest}),
}


def body(value):
    need(type(value) is dict and len(value) == 1, "has a malformed body")
    (name, inner), = value.items()
    need(name in BODIES, "is no known step")
    return name, BODIES[name](inner)


def step_document(value):
    return fields(
        value,
        {"campaign": slug, "cohort": slug, "number": u32, "at": micros, "body": body},
        {"prev_hash": digest},
    )


def bucket_document(value):
    required = {"campaign": slug, "cohort": slug, "id": u32, "before": u64, "size": u64, "regions": by_region(u64)}
    return fields(value, required, {"list_root": digest, "prev_hash": digest})


def draw_document(value):
    return fields(value, {}, {
        "commit": commit, "list_root": digest, "n0": u64, "seed": digest, "beacon": beacon, "final_seed": digest,
        "hash": digest,
    })


def promise(value):
    slowed = lambda inner: fields(inner, {"reason": one_of(REASONS), "version": u64})
    return fields(value, {"per_kilosecond": u64}, {"slowed": slowed})


def line(value):
    return fields(
        value,
        {"f0": u64, "per_kilosecond": u64, "ttl_ms": u64, "f_end": u64},
        {"state": one_of({"OPEN", "EXHAUSTED"}), "left": u64, "promise": promise},
    )


def room_document(value):
    return fields(
        value,
        {"campaign": slug, "cohort": slug, "version": u64, "phase": one_of(PHASES), "draw": draw_document,
         "regions": by_region(line), "reason": str},
        {"prev_hash": digest, "last_closed_bucket": u32, "last_bucket_hash": digest},
    )


# === The draw ===

EMPTY = dict.fromkeys(("commit", "list_root", "n0", "seed", "beacon", "final_seed", "hash"))


def clean(text):
    """One spelling on paper: nothing invisible inside, no space around."""
    size = len(text.encode())
    control = any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 for c in text)
    return 1 <= size <= 1024 and not control and text[0] != " " and text[-1] != " "


def lp(text):
    data = text.encode()
    return len(data).to_bytes(4, "big") + data


def formula(campaign, cohort, draw):
    told = draw["beacon"]
    return sha256(
        lp("doseline/draw/v1") + lp(campaign) + lp(cohort) + draw["list_root"] + draw["n0"].to_bytes(8, "big")
        + draw["seed"] + lp(told["source"]) + lp(told["round"]) + lp(told["value"])
    )


class Draw:
    """The steps so far."""

    def __init__(self):
        self.room = None
        self.known = [dict(EMPTY)]
        self.frozen = None
        self.frozen_at = None
        self.last_at = None

    def take(self, step, text):
        self.room = self.room or (step["campaign"], step["cohort"])
        need(self.room == (step["campaign"], step["cohort"]), "a step is another room's")
        draw = dict(self.known[-1])
        name, told = step["body"]
        done = len(self.known) - 1
        need(done < len(STEPS) and name == STEPS[done] and step["number"] == done + 1, f"{name} is out of order")
        need(step["prev_hash"] == draw["hash"], f"{name} does not follow the step before")
        need(self.last_at is None or step["at"] >= self.last_at, f"{name} is older than the step before")
        getattr(self, name.lower())(draw, told, step["at"])
        draw["hash"] = sha256(text.encode())
        self.last_at = step["at"]
        self.known.append(draw)

    def announced(self):
        rules = self.known[-1]["commit"]
        return [rules["beacon"]] + ([rules["second"]] if rules["second"] else [])

    def commit(self, draw, told, at):
        draw["commit"] = told
        sources = [told["beacon"]] + ([told["second"]] if told["second"] else [])
        texts = [told["code_version"]] + [s[part] for s in sources for part in ("source", "round")]
        need(all(map(clean, texts)), "the commit has a text that is not clean")
        times = [s["published_at"] for s in sources]
        need(all(t is None or t > told["reveal_by"] for t in times), "a beacon is published before the reveal")
        need(len(times) < 2 or None in times or times[0] < times[1], "the second source comes first")

    def freeze(self, draw, told, at):
        need(sum(told["regions"].values()) == told["n0"], "the frozen regions do not add up")
        usable = [s for s in self.announced() if s["published_at"] is None or at < s["published_at"]]
        need(usable, "the list was frozen when every beacon was out")
        draw["list_root"], draw["n0"] = told["list_root"], told["n0"]
        self.frozen, self.frozen_at = told, at

    def reveal(self, draw, told, at):
        rules, seed = draw["commit"], told["seed"]
        if at > rules["reveal_by"]:
            need(seed == ZERO, "the seed was revealed after its time")
        else:
            need(sha256(seed) == rules["seed_hash"], "the seed is not the committed one")
        draw["seed"] = seed

    def beacon(self, draw, told, at):
        need(clean(told["value"]), "the beacon's value is not clean")
        match = [s for s in self.announced() if (s["source"], s["round"]) == (told["source"], told["round"])]
        need(match, "the beacon was not announced")
        published = match[0]["published_at"]
        if published is not None:
            need(self.frozen_at < published, "the beacon was out before the list was frozen")
            need(at >= published, "the beacon comes before its time")
        draw["beacon"] = told
        draw["final_seed"] = formula(*self.room, draw)

    def doors(self, draw, told, at):
        need(told["final_seed"] == draw["final_seed"], "the doors name another final seed")


# === Lists ===


def tickets(path):
    found = []
    data = path.read_bytes()
    lines = data.split(b"\n")
    need(lines.pop() == b"", f"{path.name} does not end with a line")
    for text in lines:
        need(re.fullmatch(rb"[0-9a-f]{32}", text), f"{path.name} has a line that is no ticket")
        found.append(bytes.fromhex(text.decode()))
    need(all(a < b for a, b in zip(found, found[1:])), f"{path.name} is not strictly rising")
    return found


def merkle_root(leaves):
    """RFC 6962, 2.1, level by level: an odd node at the end is lifted as it is."""
    if not leaves:
        return sha256(b"")
    level = [sha256(b"\0" + leaf) for leaf in leaves]
    while len(level) > 1:
        pairs = [sha256(b"\1" + a + b) for a, b in zip(level[::2], level[1::2])]
        level = pairs + level[len(pairs) * 2:]
    return level[0]


# === Everything ===


class Audit:
    """Reads a folder; raises Wrong where it does not hold."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.keys = self.read_keys()
        self.draw = self.read_steps()
        self.lists = self.read_lists()
        self.buckets = self.read_buckets()
        self.check_lists()
        self.check_rooms()
        self.final_seed = self.draw.known[-1]["final_seed"]

    def read_keys(self):
        texts = parse((self.folder / "keys.json").read_bytes())
        need(type(texts) is dict and 1 <= len(texts) <= 64, "keys.json is no set of keys")
        keys = {}
        for kid, text in texts.items():
            need(type(text) is str, "keys.json is no set of keys")
            try:
                keys[kid] = base64.b64decode(text, validate=True)
            except ValueError:
                raise Wrong("keys.json has a key that is not base64") from None
            need(len(keys[kid]) == 32 and good_key(keys[kid]), "keys.json has a bad key")
        return keys

    def documents(self, name, purpose, shape):
        try:
            text = (self.folder / name).read_bytes().decode()
        except ValueError:
            raise Wrong(f"{name} is not text") from None
        lines = text.removesuffix("\n").split("\n") if text else []
        for number, signed in enumerate(lines, 1):
            try:
                yield shape(opened(self.keys, signed, purpose)), signed
            except Wrong as why:
                raise Wrong(f"{name}, line {number}, {why}") from None

    def read_steps(self):
        draw = Draw()
        for step, text in self.documents("steps.jsonl", "doseline/draw-step/v1", step_document):
            draw.take(step, text)
        need(draw.known[-1]["final_seed"] is not None, "the draw is not done")
        return draw

    def read_lists(self):
        lists = {}
        for path in self.folder.glob("tickets-*.txt"):
            match = re.fullmatch(r"tickets-(0|[1-9][0-9]*)\.txt", path.name)
            need(match and int(match[1]) < U32, f"{path.name} is no bucket's list")
            lists[int(match[1])] = tickets(path)
        need(0 in lists, "tickets-0.txt is missing")
        frozen = self.draw.frozen
        need(len(lists[0]) == frozen["n0"], "the list has another length than was frozen")
        need(merkle_root(lists[0]) == frozen["list_root"], "the list has another root than was frozen")
        return lists

    def read_buckets(self):
        buckets, before, last = [], 0, None
        for bucket, text in self.documents("buckets.jsonl", "doseline/bucket/v1", bucket_document):
            number = bucket["id"]
            need((bucket["campaign"], bucket["cohort"]) == self.draw.room, "a bucket is another room's")
            need(number == len(buckets) and bucket["before"] == before, f"bucket {number} does not follow")
            need(bucket["prev_hash"] == last, f"bucket {number} does not name the one before")
            need(sum(bucket["regions"].values()) == bucket["size"], f"bucket {number} does not add up")
            before += bucket["size"]
            need(before < U64, f"bucket {number} is too large")
            if number == 0:
                frozen = self.draw.frozen
                need((bucket["size"], bucket["regions"]) == (frozen["n0"], frozen["regions"]), "bucket 0 changed")
            if bucket["list_root"] is not None and number in self.lists:
                need(merkle_root(self.lists[number]) == bucket["list_root"], f"list {number} has another root")
            last = sha256(text.encode())
            buckets.append((bucket["before"], bucket["size"], last))
        need(buckets, "bucket 0 was never closed")
        return buckets

    def check_lists(self):
        seen = set()
        for number, listed in self.lists.items():
            need(number < len(self.buckets), f"bucket {number} has a list but was not closed")
            need(len(listed) == self.buckets[number][1], f"list {number} has another length than its bucket")
            need(seen.isdisjoint(listed), "somebody is in two lists")
            seen.update(listed)

    def check_rooms(self):
        old, old_text = None, None
        for room, text in self.documents("room.jsonl", "doseline/room/v1", room_document):
            version = room["version"]
            where = f"room version {version}"
            need((room["campaign"], room["cohort"]) == self.draw.room, f"{where} is another room's")
            need(version > 0 and (version == 1) == (room["prev_hash"] is None), f"{where} names no version before")
            need(room["draw"] in self.draw.known, f"{where} tells of another draw")
            is_open = PHASES[room["phase"]] >= PHASES["OPEN"]
            need(not is_open or room["draw"]["final_seed"] is not None, f"{where} is open without a draw")
            closed, named = room["last_closed_bucket"], room["last_bucket_hash"]
            if closed is None:
                need(named is None, f"{where} names a bucket that is not closed")
            else:
                known = closed < len(self.buckets) and self.buckets[closed][2] == named
                need(known, f"{where} tells of other buckets")
            if old is not None:
                self.check_next(old, old_text, room, where)
            old, old_text = room, text
        need(old is not None, "there is no room document")
        final = self.draw.known[-1]["final_seed"]
        need(old["draw"]["final_seed"] == final, "the last room document does not know the draw")

    @staticmethod
    def check_next(old, old_text, room, where):
        need(room["version"] > old["version"], f"{where} is not newer")
        if room["version"] == old["version"] + 1:
            need(room["prev_hash"] == sha256(old_text.encode()), f"{where} does not follow")
        kept = [name for name in EMPTY if name != "hash" and old["draw"][name] is not None]
        need(all(room["draw"][name] == old["draw"][name] for name in kept), f"{where} changes the draw")
        need(old["draw"]["hash"] is None or room["draw"]["hash"] is not None, f"{where} forgets the draw")
        closed = [-1 if it["last_closed_bucket"] is None else it["last_closed_bucket"] for it in (old, room)]
        need(closed[0] <= closed[1], f"{where} opens a bucket again")
        need(PHASES[room["phase"]] >= PHASES[old["phase"]], f"{where} goes back in phase")
        for region, before in old["regions"].items():
            now = room["regions"].get(region)
            need(now is not None and now["f0"] >= before["f0"], f"{where} moves a frontier back")

    def ordinal(self, number, ticket):
        need(number < len(self.buckets), f"bucket {number} is not closed")
        before, size, _ = self.buckets[number]
        mac = hmac.digest(self.final_seed, number.to_bytes(4, "big") + ticket, "sha256")
        return before + (size * int.from_bytes(mac[:8], "big") >> 64)

    def ordinals(self):
        """Every published ticket's place, by bucket and list."""
        for number in sorted(self.lists):
            for ticket in self.lists[number]:
                yield number, ticket, self.ordinal(number, ticket)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("folder")
    arguments.add_argument("--ticket")
    arguments.add_argument("--bucket", type=int, default=0)
    arguments.add_argument("--ordinals")
    given = arguments.parse_args()
    try:
        audit = Audit(given.folder)
        print("verdict: holds")
        if given.ordinals:
            lines = (f"{number} {ticket.hex()} {place}\n" for number, ticket, place in audit.ordinals())
            Path(given.ordinals).write_text("".join(lines), encoding="utf-8")
        if given.ticket:
            need(re.fullmatch(r"[0-9a-f]{32}", given.ticket), "the ticket is not 32 hex digits")
            ticket = bytes.fromhex(given.ticket)
            place = audit.ordinal(given.bucket, ticket)
            listed = audit.lists.get(given.bucket)
            need(listed is None or ticket in listed, "the ticket is not in its bucket's list")
            print(f"ordinal {place}")
    except (Wrong, OSError) as why:
        print(f"verdict: does NOT hold: {why}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
