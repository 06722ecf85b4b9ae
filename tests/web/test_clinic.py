"""A clinic's pages in a real browser: signing in, check-in by keyboard, the sheet, what is on offer, the stock."""

import datetime
import json
import unittest
import uuid
from zoneinfo import ZoneInfo

from playwright.sync_api import expect

from browser import DESKTOP, PHONE, Case
from served import asked, booking

CLINIC = "regions/seoul/clinics/1168-0042"
TERMINAL = "seoul--1168-0042"
VACCINE = "mrna-1273"
REFUSED = ("Failed to load resource", 400, 401, 403, 404, 409, 429)


class Clinic(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.people = 0
        for document in ("campaign.json", "clinics.json"):
            cls.server.doseline(document.split(".")[0].removesuffix("s"), "apply", document)
        other = json.loads((cls.server.folder / "clinics.json").read_text())
        other["clinics"][0] |= {"clinic": "1168-0099", "display_name": "Clinic 99"}
        (cls.server.folder / "other.json").write_text(json.dumps(other))
        cls.server.doseline("clinic", "apply", "other.json")
        cls.server.doseline("room", "open", "spring-2031", "fifties")
        today = datetime.datetime.now(ZoneInfo("Asia/Seoul")).date().isoformat()
        cls.today = {}
        for clinic in ("1168-0042", "1168-0099"):
            name = f"regions/seoul/clinics/{clinic}"
            cls.server.run("doseline", "clinic", "stock", "deliver", "--clinic", name, VACCINE, "60")
            opened = cls.server.doseline(
                "clinic", "open", "--clinic", name, "--campaign", "spring-2031", "--vaccine", VACCINE, "--days", today,
                "--from", "23:58", "--to", "23:59", "--capacity", "40", "-o", "json")
            cls.today[clinic] = opened["slots"][0]["name"]
        cls.server.await_slots("seoul", 6)

    @classmethod
    def code(cls, clinic="1168-0042"):
        """A booking's code for today."""
        cls.people += 1
        permit = cls.server.permit(f"visitor-{cls.people}").permit
        cls.server.await_admitted(permit)
        request = booking.BookRequest(
            permit=permit, request_id=str(uuid.uuid4()), claim_version=0, slots=[cls.today[clinic]])
        return asked(cls.server.booking.Book, request).booking.code

    def signed_in(self, *arguments, path="/clinic", **options):
        page = self.window(*arguments, **options)
        page.goto("/clinic")
        page.locator("#credential").fill(TERMINAL)
        page.locator("form.card button").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Clinic 42")
        if path != "/clinic":
            page.goto(path)
        return page

    def test_only_a_clinic_that_is_known_comes_in(self):
        page = self.window(expected=REFUSED)
        page.goto("/clinic")
        expect(page.get_by_role("heading", level=1)).to_have_text("Clinic sign-in")
        expect(page.locator("#credential")).to_be_focused()
        self.usable(page)
        self.picture(page, "sign-in-desktop-en")
        for typed, reason in (("Nobody!", "CALLER_UNKNOWN"), ("app-1", "CALLER_UNKNOWN"),
                              ("seoul--none", "CLINIC_UNKNOWN"), ("jeju--1168-0042", "INVALID_REQUEST")):
            page.locator("#credential").fill(typed)
            page.keyboard.press("Enter")
            expect(page.get_by_role("alert")).to_contain_text(reason)
            self.assertEqual(page.context.cookies(), [])
            self.usable(page)
        page.goto("/clinic/stock")
        expect(page.get_by_role("heading", level=1)).to_have_text("Clinic sign-in")

    def test_a_person_is_checked_in_and_given_the_dose_by_keyboard_alone(self):
        code = self.code()
        page = self.signed_in()
        expect(page.get_by_label("Booking code")).to_be_focused()
        page.keyboard.type(code.lower().replace("-", " "))
        page.keyboard.press("Enter")
        expect(page.get_by_role("status").filter(has_text="Checked in")).to_contain_text(code)
        self.usable(page)
        expect(page.get_by_label("Lot number")).to_be_focused()
        self.picture(page, "clinic-checked-in-desktop-en")
        page.keyboard.type("EK-2201")
        page.keyboard.press("Enter")
        expect(page.get_by_role("status").filter(has_text="Dose recorded")).to_contain_text(code)
        expect(page.get_by_label("Booking code")).to_be_focused()
        expect(page.get_by_role("row").filter(has_text=code)).to_contain_text("Dose given")

    def test_a_code_that_is_wrong_is_said_and_can_be_corrected(self):
        page = self.signed_in(expected=REFUSED)
        code = self.code()
        elsewhere = self.code("1168-0099")
        for typed, reason in (("1234", "INVALID_REQUEST"), ("0000-0000-0000", "CODE_UNKNOWN"),
                              (elsewhere, "APPOINTMENT_ELSEWHERE")):
            page.get_by_label("Booking code").fill(typed)
            page.keyboard.press("Enter")
            expect(page.get_by_role("alert")).to_contain_text(reason)
            expect(page.get_by_label("Booking code")).to_have_value(typed)
            expect(page.get_by_label("Booking code")).to_be_focused()
            expect(page).to_have_title("That did not work – Today – Vaccination appointments")
            self.usable(page)
        page.get_by_label("Booking code").fill(code)
        page.keyboard.press("Enter")
        expect(page.get_by_role("status").filter(has_text="Checked in")).to_contain_text(code)

    def test_a_form_that_is_sent_twice_counts_once(self):
        page = self.signed_in(path="/clinic/stock")

        def received():
            return int(page.get_by_role("row").filter(has_text=VACCINE).locator("td").first.inner_text())
        before = received()
        form = page.get_by_role("form", name="Delivery")
        form.get_by_label("Doses").fill("7")
        form.get_by_role("button").click()
        expect(page.get_by_role("status").filter(has_text="Stock recorded")).to_be_visible()
        self.assertEqual(received(), before + 7)
        page.reload()  # The browser sends the same form again.
        expect(page.get_by_role("status").filter(has_text="nothing was counted twice")).to_be_visible()
        self.assertEqual(received(), before + 7)
        self.usable(page)

    def test_the_stock_is_changed_and_what_cannot_be_is_said(self):
        page = self.signed_in(path="/clinic/stock", expected=REFUSED)
        self.usable(page)
        self.picture(page, "clinic-stock-desktop-en")
        for name, doses, told in (("Set aside for people without a booking", "2", "Set aside 2"),
                                  ("Spoiled doses", "1", "Spoiled")):
            form = page.get_by_role("form", name=name)
            form.get_by_label("Doses").fill(doses)
            form.get_by_role("button").click()
            expect(page.get_by_role("status").filter(has_text="Stock recorded")).to_contain_text(told)
        for told in ("For people without a booking 1", "For people without a booking 2"):
            form = page.get_by_role("form", name="Dose given without a booking")
            form.get_by_label("Lot number").fill("EK-2202")
            form.get_by_role("button").click()
            expect(page.get_by_role("status").filter(has_text="Stock recorded")).to_contain_text(told)
        form = page.get_by_role("form", name="Dose given without a booking")
        form.get_by_label("Lot number").fill("EK-2203")
        form.get_by_role("button").click()
        expect(page.get_by_role("alert")).to_contain_text("WALK_INS_EXCEEDED")
        expect(page.get_by_role("form", name="Dose given without a booking").get_by_label("Lot number")).to_have_value("EK-2203")
        self.usable(page)

    def test_the_sheet_and_the_offer_follow_what_happens_elsewhere(self):
        sheet, offer = self.signed_in(), self.signed_in(path="/clinic/inventory")
        for page in (sheet, offer):
            page.evaluate("window.sameDocument = true")
        row = offer.get_by_role("row").filter(has_text="23:58")
        before = int(row.locator("td").nth(2).inner_text())
        sheet.get_by_label("Booking code").fill("K7DF")
        code = self.code()
        expect(sheet.get_by_role("row").filter(has_text=code)).to_be_visible()
        expect(sheet.get_by_label("Booking code")).to_have_value("K7DF")
        expect(row.locator("td").nth(2)).to_have_text(str(before - 1))
        for page in (sheet, offer):
            self.assertTrue(page.evaluate("window.sameDocument"))
            self.usable(page)
        self.picture(offer, "clinic-offer-desktop-en")

    def test_buttons_of_the_sheet_do_what_they_say(self):
        code = self.code()
        page = self.signed_in()
        row = page.get_by_role("row").filter(has_text=code)
        row.get_by_role("button", name="Did not come").click()
        expect(page.get_by_role("row").filter(has_text=code)).to_contain_text("Did not come")
        page.get_by_role("row").filter(has_text=code).get_by_role("button", name="Check in").click()
        expect(page.get_by_role("status").filter(has_text="Checked in")).to_contain_text(code)
        page.get_by_role("link", name="Today").click()
        page.get_by_role("row").filter(has_text=code).get_by_role("button", name="Dose given").click()
        expect(page.get_by_label("Lot number")).to_be_focused()
        self.assertIn(code, page.locator("form", has=page.get_by_label("Lot number")).inner_text())

    def test_all_of_it_works_without_scripts_on_a_phone_in_korean(self):
        code = self.code()
        page = self.signed_in(PHONE, "ko", java_script_enabled=False)
        page.get_by_label("예약 번호").fill(code)
        page.get_by_role("button", name="접수", exact=True).click()
        expect(page.get_by_role("status").filter(has_text="접수되었습니다")).to_contain_text(code)
        page.get_by_label("제조 번호").fill("EK-1")
        page.get_by_role("button", name="접종 완료로 기록").click()
        expect(page.get_by_role("status").filter(has_text="접종이 기록되었습니다")).to_contain_text(code)

    def test_every_page_fits_a_phone_in_both_languages_and_in_the_dark(self):
        self.code()
        for language in ("en", "ko"):
            for scheme in ("light", "dark"):
                page = self.signed_in(PHONE, language, color_scheme=scheme)
                for path in ("", "/inventory", "/stock"):
                    page.goto(f"/clinic{path}")
                    self.usable(page)
                    self.picture(page, f"clinic{path.replace('/', '-')}-phone-{language}-{scheme}")
        page = self.signed_in(DESKTOP, "ko")
        self.usable(page)
        self.picture(page, "clinic-desktop-ko")

    def test_signing_out_ends_it(self):
        page = self.signed_in()
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Clinic sign-in")
        self.assertEqual(page.context.cookies(), [])
        page.go_back()
        page.reload()
        expect(page.get_by_role("heading", level=1)).to_have_text("Clinic sign-in")


if __name__ == "__main__":
    unittest.main()
