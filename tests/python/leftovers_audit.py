#!/usr/bin/env python3
"""Checks a round of leftover doses from its exported document alone. Standard library only; no line shared with Doseline itself.

Usage: leftovers_audit.py FILE
Exit status 0: the round holds. 1: it does not.
"""

import hashlib
import hmac
import json
import re
import sys
from pathlib import Path

TICKET = re.compile(r"[0-9a-f]{32}")


class Wrong(Exception):
    """What does not hold, in words."""


def need(holds, problem):
    if not holds:
        raise Wrong(problem)


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def root_of(leaves):
    """RFC 6962, 2.1."""
    if not leaves:
        return sha256()
    if len(leaves) == 1:
        return sha256(b"\0", leaves[0])
    half = 1 << (len(leaves) - 1).bit_length() - 1
    return sha256(b"\1", root_of(leaves[:half]), root_of(leaves[half:]))


def framed(text):
    return len(text.encode()).to_bytes(4, "big") + text.encode()


def order_of(key, seed, tickets):
    """The root of the sorted list, and the tickets in the order drawn."""
    tickets = sorted(tickets)
    root = root_of(tickets)
    names = framed("doseline/leftovers/v1") + framed(key["campaign"]) + framed(key["clinic"])
    final = sha256(names, key["round"].to_bytes(8, "big"), root, len(tickets).to_bytes(8, "big"), seed)
    return root, sorted(tickets, key=lambda ticket: hmac.digest(final, ticket, "sha256"))


def check(document):
    """Candidates, people offered a dose, people who accepted; raises what is wrong."""
    places, doses = document["places"], document["doses"]
    seed = bytes.fromhex(document["seed"])
    need(sha256(seed).hex() == document["commitment"], "the seed is not the one that was committed to")
    need(all(TICKET.fullmatch(place["ticket"]) for place in places), "a ticket is none")
    tickets = [bytes.fromhex(place["ticket"]) for place in places]
    need(len(set(tickets)) == len(tickets), "a ticket is on the list twice")
    root, order = order_of(document["key"], seed, tickets)
    need(root.hex() == document["list_root"] and document["candidates"] == len(tickets), "another list than the published one")
    need(order == tickets, "another order than the one drawn")
    steps, reached, waiting = [], 0, False
    for number, place in enumerate(places, 1):
        state, offered, ended = place["state"], place["offered_at"], place["ended_at"]
        fits = {
            "WAITING": offered is None and ended is None,
            "OFFERED": offered is not None and ended is None,
            "ACCEPTED": None not in (offered, ended) and ended < place["deadline"],
            "DECLINED": None not in (offered, ended) and ended < place["deadline"],
            "EXPIRED": None not in (offered, ended) and ended >= place["deadline"],
            "LEFT": ended is not None,
            "PASSED": ended is not None,
        }[state]
        need(fits and (None in (offered, ended) or ended >= offered), f"the times of place {number} contradict its state")
        if state == "WAITING":
            waiting = True
            continue
        since = ended if offered is None else offered
        need(not waiting and since >= reached, f"place {number} was reached before one in front of it")
        reached = since
        if offered is not None:
            steps.append((offered, 1))
            if ended is not None and state != "ACCEPTED":
                steps.append((ended, -1))
    now = 0
    for _, step in sorted(steps):
        now += step
        need(now <= doses, "more people had or could get a dose than there are")
    accepted = sum(place["state"] == "ACCEPTED" for place in places)
    return len(places), sum(place["offered_at"] is not None for place in places), accepted


def main():
    try:
        listed, offered, accepted = check(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    except (Wrong, KeyError, TypeError, ValueError) as wrong:
        print(f"The round does not hold: {wrong}")
        return 1
    print(f"The round holds: {listed} candidates, {offered} offered, {accepted} accepted.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
