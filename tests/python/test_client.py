"""A client in another language books, moves and cancels by the README's text alone, and is told why when it may not."""

import copy
import csv
import datetime
import functools
import json
import time
import unittest
import uuid

from grpc import StatusCode

from served import Refused, Server, asked, booking, readme_block

SEOUL = datetime.timezone(datetime.timedelta(hours=9))
STATE_BOOKED = booking.Appointment.STATE_BOOKED
STATE_CANCELLED = booking.Appointment.STATE_CANCELLED


def new_id():
    return str(uuid.uuid4())


class Case(unittest.TestCase):
    """One server for a class of tests; every test has people of its own."""

    @classmethod
    def setUpClass(cls):
        cls.server = Server()
        cls.addClassCleanup(cls.server.stop)
        campaign = json.loads((cls.server.folder / "campaign.json").read_text())
        sixties = copy.deepcopy(campaign["cohorts"][0])
        sixties |= {"cohort": "sixties", "born_from": "1961-01-01", "born_to": "1970-12-31"}
        campaign["cohorts"].append(sixties)
        clinics = json.loads((cls.server.folder / "clinics.json").read_text())
        for name, document in (("campaign.json", campaign), ("clinics.json", clinics)):
            (cls.server.folder / name).write_text(json.dumps(document))
        cls.server.doseline("campaign", "apply", "campaign.json")
        cls.server.doseline("clinic", "apply", "clinics.json")
        cls.server.doseline("room", "open", "spring-2031", "fifties")
        cls.slots = [slot.name for slot in cls.server.await_slots("seoul", 2)]

    def person(self, sub):
        """A permit whose holder may book."""
        permit = self.server.permit(sub).permit
        self.server.await_admitted(permit)
        return permit

    def book(self, permit, slot, request_id=None, claim_version=0):
        request = booking.BookRequest(
            permit=permit, request_id=request_id or new_id(), claim_version=claim_version, slots=[slot])
        return asked(self.server.booking.Book, request)

    def cancel(self, permit, name, claim_version, request_id=None):
        request = booking.CancelBookingRequest(
            permit=permit, request_id=request_id or new_id(), claim_version=claim_version, booking=name)
        return asked(self.server.booking.CancelBooking, request)

    def own(self, permit, name=""):
        return asked(self.server.booking.GetBooking, booking.GetBookingRequest(permit=permit, name=name))

    def left(self, slot):
        """Places left at a slot, as published."""
        return next(one.left for one in self.server.await_slots("seoul", 2) if one.name == slot)

    def refuses(self, code, reason, ask, *arguments, **named):
        """Asks and expects this refusal; returns it."""
        with self.assertRaises(Refused) as caught:
            ask(*arguments, **named)
        refused = caught.exception
        self.assertEqual((refused.code, refused.reason), (code, reason), str(refused))
        self.assertEqual(refused.info.domain, "doseline")
        return refused


class Booking(Case):
    def test_a_person_books_moves_and_cancels(self):
        permit = self.person("mover")
        request_id = new_id()
        booked = self.book(permit, self.slots[0], request_id)
        self.assertFalse(booked.repeated_answer)
        self.assertEqual(booked.claim_version, 1)
        self.assertRegex(booked.booking.name, r"^regions/seoul/bookings/[0-9a-f-]{36}$")
        self.assertRegex(booked.booking.code, r"^[0-9A-Z]{4}-[0-9A-Z]{4}-[0-9A-Z]{4}$")
        self.assertEqual([(one.slot, one.dose, one.state) for one in booked.booking.appointments],
                         [(self.slots[0], 1, STATE_BOOKED)])

        again = self.book(permit, self.slots[0], request_id)
        self.assertTrue(again.repeated_answer)
        self.assertEqual((again.booking, again.claim_version), (booked.booking, 1))

        move = booking.MoveBookingRequest(permit=permit, request_id=new_id(), claim_version=1,
                                          booking=booked.booking.name, dose=1, slot=self.slots[1])
        moved = asked(self.server.booking.MoveBooking, move)
        self.assertEqual((moved.booking.name, moved.booking.code), (booked.booking.name, booked.booking.code))
        self.assertEqual([one.slot for one in moved.booking.appointments if one.state == STATE_BOOKED],
                         [self.slots[1]])
        read = self.own(permit)
        self.assertEqual((read.booking, read.claim_version), (moved.booking, moved.claim_version))

        cancelled = self.cancel(permit, booked.booking.name, moved.claim_version)
        self.assertGreater(cancelled.claim_version, moved.claim_version)
        empty = self.own(permit)
        self.assertFalse(empty.HasField("booking"))
        self.assertEqual(empty.claim_version, cancelled.claim_version)

    def test_a_hold_is_confirmed_into_a_booking(self):
        permit = self.person("holder")
        held = asked(self.server.booking.HoldSlots, booking.HoldSlotsRequest(
            permit=permit, request_id=new_id(), slots=[self.slots[0]]))
        self.assertEqual(list(held.hold.slots), [self.slots[0]])
        self.assertEqual(self.own(permit).hold.name, held.hold.name)
        confirmed = asked(self.server.booking.ConfirmHold, booking.ConfirmHoldRequest(
            permit=permit, request_id=new_id(), claim_version=held.claim_version, hold=held.hold.name))
        self.assertEqual(self.own(permit).booking, confirmed.booking)

    def test_a_permit_asked_for_again_keeps_its_place(self):
        first, second = self.server.permit("reloader"), self.server.permit("reloader")
        for field in ("cohort", "region", "serial", "bucket"):
            self.assertEqual(getattr(first, field), getattr(second, field), field)

    def test_a_slot_takes_no_more_than_its_capacity(self):
        clinics = json.loads((self.server.folder / "clinics.json").read_text())
        clinics["clinics"][0] |= {"clinic": "1168-0099", "stock": {"mrna-1273": 2}}
        clinics["clinics"][0]["slots"] = clinics["clinics"][0]["slots"][:1]
        clinics["clinics"][0]["slots"][0]["capacity"] = 2
        (self.server.folder / "small.json").write_text(json.dumps(clinics))
        self.server.doseline("clinic", "apply", "small.json")
        shown = self.server.await_slots("seoul", 3)
        small = next(slot.name for slot in shown if "/1168-0099/" in slot.name)
        for number in range(2):
            self.book(self.person(f"small-{number}"), small)
        self.refuses(StatusCode.FAILED_PRECONDITION, "SLOT_FULL", self.book, self.person("small-2"), small)

    def test_a_cancelled_bookings_request_does_not_book_again(self):
        permit, request_id = self.person("replayer"), new_id()
        booked = self.book(permit, self.slots[0], request_id)
        cancelled = self.cancel(permit, booked.booking.name, booked.claim_version)
        replayed = self.book(permit, self.slots[0], request_id)
        self.assertTrue(replayed.repeated_answer)
        self.assertEqual((replayed.booking, replayed.claim_version), (booked.booking, booked.claim_version))
        self.assertFalse(self.own(permit).HasField("booking"))

        stale = self.refuses(StatusCode.FAILED_PRECONDITION, "CLAIM_VERSION_STALE",
                             self.book, permit, self.slots[0])
        self.assertEqual(stale.info.metadata["claim_version"], str(cancelled.claim_version))
        self.assertFalse(self.own(permit).HasField("booking"))
        rebooked = self.book(permit, self.slots[0], claim_version=cancelled.claim_version)
        self.assertNotEqual(rebooked.booking.name, booked.booking.name)

    def test_nobody_books_before_the_doors_open(self):
        permit, request_id = self.server.permit("early", "1965-03-02").permit, new_id()
        refused = self.refuses(StatusCode.FAILED_PRECONDITION, "NOT_ADMITTED",
                               self.book, permit, self.slots[1], request_id)
        self.assertGreater(refused.retry_secs, 0)
        self.assertFalse(self.own(permit).HasField("booking"))
        self.server.doseline("room", "open", "spring-2031", "sixties")
        self.server.await_admitted(permit)
        # A refusal is not recorded: the same request may succeed later.
        self.assertFalse(self.book(permit, self.slots[1], request_id).repeated_answer)


class Refusals(Case):
    def test_every_wrong_field_is_named(self):
        request = booking.BookRequest(permit=self.person("clumsy"), request_id="7", slots=["seoul/17"])
        refused = self.refuses(StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST",
                               asked, self.server.booking.Book, request)
        self.assertIn("regions/{region}/clinics/{clinic}/slots/{slot}", refused.fields["slots[0]"])
        self.assertIn("request_id", refused.fields)

    def test_a_malformed_request_id_is_named(self):
        request = booking.BookRequest(permit=self.person("clumsy"), request_id="7", slots=[self.slots[0]])
        refused = self.refuses(StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST",
                               asked, self.server.booking.Book, request)
        self.assertIn("request_id", refused.fields)

    def test_a_forged_permit_opens_nothing(self):
        permit = self.person("forger")
        body, footer = permit.rsplit(".", 1)
        at = len(body) // 2
        flipped = body[:at] + ("A" if body[at] != "A" else "B") + body[at + 1:]
        left = self.left(self.slots[0])
        for forged in (f"{flipped}.{footer}", body, "v4.public.AAAA", "nonsense"):
            refused = self.refuses(StatusCode.UNAUTHENTICATED, "PERMIT_INVALID",
                                   self.book, forged, self.slots[0])
            self.assertNotIn(forged, str(refused))
        self.assertEqual(self.left(self.slots[0]), left)

    def test_age_is_judged_to_the_day(self):
        self.assertEqual(self.server.permit("oldest", "1961-01-01").cohort, "sixties")
        self.assertEqual(self.server.permit("youngest", "1980-12-31").cohort, "fifties")
        for birthdate in ("1960-12-31", "1981-01-01"):
            self.refuses(StatusCode.PERMISSION_DENIED, "NOT_ELIGIBLE",
                         self.server.permit, f"born-{birthdate}", birthdate)

    def test_a_person_has_one_region(self):
        self.server.permit("traveller", region="seoul")
        self.refuses(StatusCode.FAILED_PRECONDITION, "REGION_BOUND",
                     self.server.permit, "traveller", region="busan")
        clinics = json.loads((self.server.folder / "clinics.json").read_text()) | {"region": "busan"}
        (self.server.folder / "busan.json").write_text(json.dumps(clinics))
        self.server.doseline("clinic", "apply", "busan.json")
        elsewhere = self.server.await_slots("busan", 2)[0].name
        self.refuses(StatusCode.PERMISSION_DENIED, "PERMIT_FOREIGN_REGION",
                     self.book, self.person("wanderer"), elsewhere)

    def test_one_person_has_one_booking(self):
        permit = self.person("greedy")
        first = self.book(permit, self.slots[0])
        self.refuses(StatusCode.ALREADY_EXISTS, "ALREADY_BOOKED", self.book, permit, self.slots[1],
                     claim_version=first.claim_version)
        self.assertEqual(self.own(permit).booking, first.booking)

    def test_a_request_id_stands_for_one_request(self):
        permit, request_id = self.person("reuser"), new_id()
        self.book(permit, self.slots[0], request_id)
        self.refuses(StatusCode.INVALID_ARGUMENT, "REQUEST_ID_REUSED",
                     self.book, permit, self.slots[1], request_id)

    def test_a_permit_is_good_for_the_system_that_asked_for_it(self):
        permit = self.person("customer")
        request = booking.GetBookingRequest(permit=permit)
        other = [("x-doseline-caller", "another-app")]
        self.refuses(StatusCode.UNAUTHENTICATED, "PERMIT_FOREIGN_CALLER", asked,
                     functools.partial(self.server.booking.GetBooking, metadata=other), request)


class Restart(Case):
    def test_what_was_acknowledged_survives_a_kill(self):
        permit, request_id = self.person("survivor"), new_id()
        booked = self.book(permit, self.slots[0], request_id)
        self.server.kill()
        self.server.start()
        self.server.await_slots("seoul", 2)
        self.assertEqual(self.own(permit).booking, booked.booking)
        again = self.book(permit, self.slots[0], request_id)
        self.assertTrue(again.repeated_answer)
        self.assertEqual((again.booking, again.claim_version), (booked.booking, booked.claim_version))
        # The room is still open, and places are given out where they were left.
        self.book(self.person("successor"), self.slots[0])
        self.assertEqual(self.server.permit("survivor").serial, 1)


class Readme(unittest.TestCase):
    """Runs what the README shows, as it stands there."""

    def setUp(self):
        self.server = Server()
        self.addCleanup(self.server.stop)
        shown = readme_block("In another terminal:", "console").splitlines()
        commands = [line.removeprefix("$ ") for line in shown if line.startswith("$ ")]
        applied = next(at for at, line in enumerate(commands) if line.startswith("doseline clinic apply"))
        self.before, self.after = commands[:applied + 1], commands[applied + 1:]

    def shell(self, commands):
        return self.server.run("bash", "-euo", "pipefail", "-c", "\n".join(commands))

    def test_the_transcript_and_the_program_work_as_printed(self):
        self.shell(self.before)
        self.server.await_slots("seoul", 2)
        printed = self.shell(self.after)
        for word in ('"repeated_answer": true', "STATE_BOOKED", '"claim_version": 3'):
            self.assertIn(word, printed)

        script = self.server.folder / "book.py"
        script.write_text(readme_block("`book.py`:", "python"), encoding="utf-8")
        printed = self.server.run("python", str(script), self.server.assertion("py"))
        self.assertRegex(printed, r"regions/seoul/bookings/[0-9a-f-]{36}")
        self.assertIn("repeated: True", printed)
        self.assertIn("refused: CLAIM_VERSION_STALE", printed)

    def test_a_clinics_week_works_as_printed(self):
        self.shell(self.before)
        self.server.await_slots("seoul", 2)
        # The booking of the other section is made and given up before.
        own = self.after
        await_time_left_today()
        shown = readme_block("In the terminal of that clinic:", "console").replace("\\\n", "").splitlines()
        commands = [line.removeprefix("$ ") for line in shown if line.startswith("$ ")]
        printed = self.shell(own + commands)
        for line in ("mrna-1273        60       0        0      10      0",
                     "mrna-1273        60       0        2      40      0",
                     "mrna-1273        60      30        2      28      2",
                     "mrna-1273        60      30        2      28     0       1      2    27"):
            self.assertIn(line, printed)
        self.assertRegex(printed, r"[0-9A-Z]{4}-[0-9A-Z]{4}-[0-9A-Z]{4} .* booked\n")
        for state in ("checked-in", "given", "closed", "short: 0"):
            self.assertIn(state, printed)
        # The same figures for spreadsheets and for programs, and none for another clinic's terminal.
        rows = list(csv.DictReader(self.server.run("doseline", "clinic", "supply", "seoul", "-o", "csv").splitlines()))
        self.assertEqual([(row["vaccine"], row["opened"], row["given"], row["left"]) for row in rows],
                         [("mrna-1273", "28", "2", "27")])
        supply = self.server.doseline("clinic", "supply", "seoul", "-o", "json")["supply"]
        self.assertEqual((supply[0]["received"], supply[0]["booked"]), (60, 1))
        foreign = ("clinic", "inventory", "--clinic", "regions/seoul/clinics/1168-0042", "--caller", "seoul--1168-0043")
        with self.assertRaisesRegex(AssertionError, "CLINIC_FOREIGN"):
            self.server.doseline(*foreign)


    def test_an_evenings_leftovers_work_as_printed(self):
        self.shell(self.before)
        self.server.await_slots("seoul", 2)
        await_time_left_today()
        shown = readme_block("In the evening:", "console").replace("\\\n", "").splitlines()
        printed = self.shell([line.removeprefix("$ ") for line in shown if line.startswith("$ ")])
        self.assertIn('"state": "STATE_BOOKED"', printed)
        self.assertRegex(printed, r"1  mrna-1273 +9 +1  drawn +1 ")
        self.assertRegex(printed, r"1  mrna-1273 +9 +1  closed +1 ")
        self.assertIn(shown[-1], printed)


def await_time_left_today():
    """A slot of today must be to come: in the last minutes of the day, waits for the next one."""
    deadline = time.monotonic() + 600
    while datetime.datetime.now(SEOUL).strftime("%H:%M") >= "23:55":
        if time.monotonic() > deadline:
            raise AssertionError("the day does not end")
        time.sleep(1)


if __name__ == "__main__":
    unittest.main()
