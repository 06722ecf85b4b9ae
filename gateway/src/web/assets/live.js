// Keeps a page as new as the server's, and ticks countdowns by the server's clock. Everything also works without it.
"use strict";
(() => {
  const root = document.documentElement;
  const address = root.dataset.live;
  const stale = document.getElementById("stale");

  // The server's clock in terms of this page's own, which nobody can set: a time that was sent is never ahead of the
  // server's, so the largest difference seen is the nearest.
  let offset = -Infinity;
  const hear = (ms) => {
    const seen = Number(ms);
    if (seen > 0) offset = Math.max(offset, seen - performance.now());
  };
  const now = () => performance.now() + offset;
  hear(root.dataset.now);

  const two = (n) => String(n).padStart(2, "0");
  const clock = (ms, day) => {
    const s = Math.ceil(ms / 1000);
    const days = Math.floor(s / 86400);
    const rest = two(Math.floor(s / 3600) % 24) + ":" + two(Math.floor(s / 60) % 60) + ":" + two(s % 60);
    return days > 0 ? days + day + " " + rest : rest;
  };
  const tick = () => {
    for (const at of document.querySelectorAll("[data-target]")) {
      const left = Number(at.dataset.target) - now();
      const text = left > 0 ? clock(left, at.dataset.day) : at.dataset.over;
      if (at.textContent !== text) at.textContent = text;
    }
  };
  tick();
  setInterval(tick, 250);

  // Puts a part's new content in its place; whoever has the focus in it keeps it, and open details stay open.
  const swap = (id, html) => {
    const part = document.getElementById(id);
    if (!part || part.innerHTML === html) return;
    const focused = part.contains(document.activeElement) ? document.activeElement.id : "";
    const open = Array.from(part.querySelectorAll("details[open][id]"), (one) => one.id);
    part.innerHTML = html;
    for (const one of open) document.getElementById(one)?.setAttribute("open", "");
    if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
    tick();
  };

  const live = (is) => {
    if (stale) stale.hidden = is;
    root.dataset.state = is ? "live" : "stale";
  };

  // Where there is no stream to be had, the page is asked for again, at a pace of its own.
  let tag = "";
  const poll = async () => {
    let wait = 8000 + Math.random() * 4000;
    try {
      const answer = await fetch(location.pathname + location.search, {
        headers: tag ? { "If-None-Match": tag } : {}, cache: "no-store", credentials: "same-origin",
      });
      wait = Math.max(wait, 1000 * Number(answer.headers.get("Retry-After") || 0));
      if (answer.ok) {
        tag = answer.headers.get("ETag") || "";
        const page = new DOMParser().parseFromString(await answer.text(), "text/html");
        hear(page.documentElement.dataset.now);
        for (const part of page.querySelectorAll("[data-part]")) swap(part.id, part.innerHTML);
      }
      live(answer.ok || answer.status === 304);
    } catch {
      live(false);
    }
    setTimeout(poll, wait);
  };

  const follow = () => {
    const stream = new EventSource(address);
    stream.addEventListener("time", (event) => {
      hear(event.data);
      live(true);
    });
    stream.addEventListener("part", (event) => {
      const end = event.data.indexOf("\n");
      swap(event.data.slice(0, end), event.data.slice(end + 1));
    });
    stream.addEventListener("error", () => {
      live(false);
      if (stream.readyState === EventSource.CLOSED) setTimeout(poll, Math.random() * 3000);
    });
  };
  if (address) follow();
})();
