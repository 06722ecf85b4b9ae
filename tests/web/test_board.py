"""The public board in a real browser: before, during and after an opening, by the server's clock, live, for everybody."""

import copy
import datetime
import json
import re
import time
import unittest
import uuid

from playwright.sync_api import expect

from browser import DESKTOP, PHONE, WRONG_CLOCK, Case
from served import asked, booking

TICKS = re.compile(r"^(\d\d):(\d\d):(\d\d)$")


def in_seconds(seconds):
    at = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=seconds)
    return at.replace(microsecond=0)


def cohort(page, name):
    return page.locator("article", has=page.get_by_role("heading", name=name, exact=True))


def left(page, name):
    """Seconds on a cohort's countdown."""
    hours, minutes, seconds = map(int, TICKS.match(cohort(page, name).get_by_role("timer").inner_text()).groups())
    return 3600 * hours + 60 * minutes + seconds


class Board(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        campaign = json.loads((cls.server.folder / "campaign.json").read_text())
        cls.opens_at = in_seconds(5400)
        first = campaign["cohorts"][0] | {"opens_at": cls.opens_at.isoformat()}
        cohorts = [first]
        # Each test opens a cohort of its own.
        for at, (name, seconds) in enumerate({"forties": 4000, "sixties": -5, "seventies": 5400, "eighties": 5400}.items()):
            born = 1910 + 10 * at
            one = {"cohort": name, "born_from": f"{born}-01-01", "born_to": f"{born + 9}-12-31"}
            cohorts.append(copy.deepcopy(first) | one | {"opens_at": in_seconds(seconds).isoformat()})
        campaign["cohorts"] = cohorts
        clinics = json.loads((cls.server.folder / "clinics.json").read_text())
        # Busan has one place: it is soon sold out.
        small = copy.deepcopy(clinics) | {"region": "busan"}
        small["clinics"][0] |= {"stock": {"mrna-1273": 1}, "slots": clinics["clinics"][0]["slots"][:1]}
        small["clinics"][0]["slots"] = [small["clinics"][0]["slots"][0] | {"capacity": 1}]
        for name, document in (("campaign.json", campaign), ("clinics.json", clinics), ("busan.json", small)):
            (cls.server.folder / name).write_text(json.dumps(document))
        cls.server.doseline("campaign", "apply", "campaign.json")
        cls.server.doseline("clinic", "apply", "clinics.json")
        cls.server.doseline("clinic", "apply", "busan.json")
        cls.server.await_slots("seoul", 2)
        cls.server.await_slots("busan", 1)

    def board(self, *arguments, path="/", **options):
        page = self.window(*arguments, **options)
        page.goto(path)
        expect(page.get_by_role("heading", name="spring-2031")).to_be_visible()
        return page

    def test_the_countdown_goes_by_the_servers_clock(self):
        page = self.window()
        page.add_init_script(WRONG_CLOCK)
        page.goto("/")
        self.assertGreater(page.evaluate("Date.now()") / 1000 - time.time(), 80_000, "this browser's clock is a day ahead")
        expect(cohort(page, "fifties").get_by_text("Doors open in")).to_be_visible()
        expected = self.opens_at.timestamp() - time.time()
        self.assertLess(abs(left(page, "fifties") - expected), 5)
        before = left(page, "fifties")
        page.wait_for_function(f"document.querySelector('[role=timer]').textContent !== {json.dumps(str(before))}")
        expect(cohort(page, "fifties").get_by_role("timer")).not_to_have_text(
            cohort(page, "fifties").get_by_role("timer").inner_text())
        self.assertLess(left(page, "fifties"), before, "it ticks")

    def test_doors_that_are_due_open_any_moment_and_not_by_a_clock(self):
        page = self.board()
        due = cohort(page, "sixties")
        expect(due.get_by_role("timer")).to_have_text("Any moment now")
        expect(due.get_by_text("Before the draw")).to_be_visible()

    def test_an_opening_is_seen_without_loading_again(self):
        page = self.board()
        page.evaluate("window.sameDocument = true")
        before = cohort(page, "forties")
        expect(before.get_by_text("Before the draw")).to_be_visible()
        expect(before.get_by_text("counted when the list is closed")).to_be_visible()
        self.server.doseline("room", "open", "spring-2031", "forties")
        expect(before.get_by_text("Doors are open", exact=True)).to_be_visible()
        expect(before.get_by_role("timer")).to_have_count(0)
        expect(before.get_by_text("Speed")).to_be_visible()
        expect(page.locator("#news")).to_contain_text("forties: Doors are open.")
        self.server.doseline("room", "pause", "spring-2031", "forties", "--reason", "a test")
        expect(before.get_by_text("Paused", exact=True)).to_be_visible()
        self.assertTrue(page.evaluate("window.sameDocument"), "the page was never loaded again")

    def test_what_is_sold_out_is_said_in_the_line_and_in_the_supply(self):
        page = self.board()
        row = page.locator("#supply").get_by_role("row", name="Busan")
        expect(row).to_contain_text("1")
        permit = self.server.permit("ann", "1975-03-02", region="busan").permit
        self.server.doseline("room", "open", "spring-2031", "fifties")
        self.server.await_admitted(permit)
        slot = self.server.await_slots("busan", 1)[0].name
        request = booking.BookRequest(permit=permit, request_id=str(uuid.uuid4()), claim_version=0, slots=[slot])
        asked(self.server.booking.Book, request)
        expect(row).to_contain_text("Sold out")
        line = cohort(page, "fifties")
        line.get_by_text("By region", exact=True).click()
        expect(line.get_by_role("row", name="Busan")).to_contain_text("Sold out")
        self.assertTrue(line.locator("details").evaluate("one => one.open"), "it stays open while figures change")
        self.usable(page)
        self.picture(page, "board-open-desktop-en")
        phone = self.board(PHONE, "ko")
        cohort(phone, "fifties").get_by_text("지역별", exact=True).click()
        self.usable(phone)
        self.picture(phone, "board-open-phone-ko")

    def test_both_languages_on_both_sizes_and_in_the_dark(self):
        for size, of in ((DESKTOP, "desktop"), (PHONE, "phone")):
            for language, title in (("en", "How the appointments stand"), ("ko", "예약 현황")):
                for scheme in ("light", "dark"):
                    with self.subTest(of=of, language=language, scheme=scheme):
                        page = self.board(size, language, color_scheme=scheme)
                        expect(page.get_by_role("heading", level=1)).to_have_text(title)
                        self.assertEqual(page.locator("html").get_attribute("lang"), language)
                        self.usable(page)
                        self.picture(page, f"board-{of}-{language}-{scheme}")

    def test_a_language_that_was_chosen_stays(self):
        page = self.board()
        page.get_by_role("link", name="한국어").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("예약 현황")
        page.goto("/")
        expect(page.get_by_role("heading", level=1)).to_have_text("예약 현황")

    def test_it_works_without_scripts(self):
        page = self.board(java_script_enabled=False)
        expect(cohort(page, "seventies").get_by_text("Doors open in")).to_be_visible()
        self.assertRegex(cohort(page, "seventies").locator("[data-target]").inner_text(), TICKS)
        self.assertEqual(page.locator("meta[http-equiv=refresh]").get_attribute("content"), "10")
        before = page.locator("#as-of").inner_text()
        # The browser loads the page again by itself.
        expect(page.locator("#as-of")).not_to_have_text(before)

    def test_a_page_without_a_stream_asks_again(self):
        page = self.window(expected=("Failed to load resource", 503))
        page.route("**/board/live*", lambda route: route.fulfill(status=503, body=""))
        page.goto("/")
        expect(cohort(page, "eighties").get_by_text("Before the draw")).to_be_visible()
        self.server.doseline("room", "open", "spring-2031", "eighties")
        expect(cohort(page, "eighties").get_by_text("Doors are open", exact=True)).to_be_visible()

    def test_who_has_no_mouse_gets_everywhere(self):
        page = self.board()
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
        page.keyboard.press("Enter")
        self.assertEqual(page.evaluate("document.activeElement.id"), "content")
        for name in ("Vaccination appointments", "Public board", "For clinics", "한국어", "English"):
            page.get_by_role("link", name=name, exact=True).first.focus()
            self.assertNotEqual(page.evaluate("getComputedStyle(document.activeElement).outlineStyle"), "none", name)

    def test_a_page_that_is_none_is_said_to_be_none(self):
        page = self.window(expected=("Failed to load resource", 404))
        page.goto("/nothing")
        expect(page.get_by_role("heading", level=1)).to_have_text("There is no such page")
        self.usable(page)


if __name__ == "__main__":
    unittest.main()
