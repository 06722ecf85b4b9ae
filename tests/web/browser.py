"""A real browser on the pages of the real program, with everything noted that a browser complains about.

Invariant: a test ends with a complaint if the browser had one: an error of a script, a breach of the page's policy, a
request that failed.
"""

import os
import shutil
import sys
import unittest
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "python"))
from served import Server  # noqa: E402  (the client tests know how the program is started)

SCREENSHOTS = ROOT / "report" / "web"
DESKTOP = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}
# A busy machine is slow; a page that needs longer than this is broken.
WITHIN_MS = 20_000
expect.set_options(timeout=WITHIN_MS)

# What a page says of itself that a person could not use: unnamed fields and buttons, headings out of order, text too
# faint, targets too small for a thumb.
CHECKS = """(phone) => {
  const wrong = [];
  const seen = (one) => one.checkVisibility({ opacityProperty: true, visibilityProperty: true })
    && one.getBoundingClientRect().width > 1;
  if (!document.documentElement.lang) wrong.push("no language");
  if (!document.title) wrong.push("no title");
  if (document.querySelectorAll("main").length !== 1) wrong.push("not one main");
  const ids = Array.from(document.querySelectorAll("[id]"), (one) => one.id);
  for (const id of new Set(ids)) if (ids.filter((other) => other === id).length > 1) wrong.push("id twice: " + id);
  for (const name of ["aria-labelledby", "aria-describedby"])
    for (const one of document.querySelectorAll("[" + name + "]"))
      for (const id of one.getAttribute(name).split(" "))
        if (!document.getElementById(id)) wrong.push(name + " of nothing: " + id);
  for (const one of document.querySelectorAll("input:not([type=hidden]), select, textarea"))
    if (!one.labels.length && !one.getAttribute("aria-label")) wrong.push("no label: " + one.name);
  for (const one of document.querySelectorAll("button, a[href], summary"))
    if (!(one.getAttribute("aria-label") || one.textContent).trim()) wrong.push("no name: " + one.outerHTML);
  for (const one of document.querySelectorAll("table"))
    if (!one.caption && !one.getAttribute("aria-label")) wrong.push("a table without a caption");
  for (const one of document.querySelectorAll("th")) if (!one.scope) wrong.push("a heading of nothing: " + one.textContent);
  for (const one of document.querySelectorAll("[style], style, script:not([src])")) wrong.push("inline: " + one.outerHTML.slice(0, 80));
  let level = 0;
  for (const one of document.querySelectorAll("h1, h2, h3, h4")) {
    const next = Number(one.tagName[1]);
    if (next > level + 1) wrong.push("heading skips: " + one.textContent);
    level = next;
  }
  const parse = (text) => { const [r, g, b, a = 1] = text.match(/[0-9.]+/g).map(Number); return { r, g, b, a }; };
  const light = ({ r, g, b }) => [r, g, b].map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, at) => sum + v * [0.2126, 0.7152, 0.0722][at], 0);
  const behind = (one) => {
    for (let at = one; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.a === 1) return colour;
    }
    return { r: 255, g: 255, b: 255 };
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const one = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || !seen(one) || one.closest("svg, noscript, script")) continue;
    const [a, b] = [light(parse(getComputedStyle(one).color)), light(behind(one))].sort((x, y) => y - x);
    const size = parseFloat(getComputedStyle(one).fontSize);
    if ((a + 0.05) / (b + 0.05) < (size >= 24 ? 3 : 4.5)) wrong.push("faint: " + texts.currentNode.data.trim());
  }
  if (phone) {
    if (document.documentElement.scrollWidth > innerWidth) wrong.push("wider than the phone");
    for (const one of document.querySelectorAll("button, input:not([type=hidden]), select, summary, nav a"))
      if (seen(one) && one.getBoundingClientRect().height < 43.9) wrong.push("too small: " + one.outerHTML.slice(0, 80));
  }
  return wrong;
}"""

# A person's clock that is a day ahead, as some had set theirs to get in earlier.
WRONG_CLOCK = """(() => {
  const Real = Date, ahead = 86400000;
  window.Date = class extends Real {
    constructor(...given) { given.length ? super(...given) : super(Real.now() + ahead); }
    static now() { return Real.now() + ahead; }
  };
})();"""


def chromium():
    """Debian's browser."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        raise AssertionError("there is no chromium: ./dev installs it")
    return found


class Case(unittest.TestCase):
    """One server and one browser for a class of tests; every test has windows of its own."""

    @classmethod
    def setUpClass(cls):
        cls.server = Server()
        cls.addClassCleanup(cls.server.stop)
        playwright = sync_playwright().start()
        cls.addClassCleanup(playwright.stop)
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        cls.chromium = playwright.chromium.launch(executable_path=chromium(), args=sandbox)
        cls.addClassCleanup(cls.chromium.close)

    def window(self, size=DESKTOP, language="en", expected=(), **options):
        """A page of a fresh profile. `expected` are statuses that the test wants to see refused."""
        phone = size == PHONE
        context = self.chromium.new_context(
            viewport=size, locale={"en": "en-GB", "ko": "ko-KR"}[language], base_url=self.server.web,
            is_mobile=phone, has_touch=phone, device_scale_factor=2 if phone else 1, **options)
        self.addCleanup(context.close)
        context.set_default_timeout(WITHIN_MS)
        page = context.new_page()
        complaints = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: message.type in ("error", "warning") and complaints.append(message.text))
        page.on("response", lambda answer: answer.status >= 400 and complaints.append(f"{answer.status} {answer.url}"))

        def check():
            mine = [one for one in complaints if not any(str(status) in one for status in expected)]
            self.assertEqual(mine, [])
        self.addCleanup(check)
        page.phone = phone
        return page

    def usable(self, page):
        """Nothing stands in the way of anybody."""
        self.assertEqual(page.evaluate(CHECKS, page.phone), [], page.url)

    @staticmethod
    def picture(page, name):
        """For people to look at."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)
