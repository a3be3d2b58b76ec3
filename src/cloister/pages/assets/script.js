// What makes the pages live and quick. Every page works without it: forms post, links lead, dialogs open by address.
// It asks nobody but this server, keeps nothing but two choices of the reader, and runs no text that it was given.

const WAIT_MS = 300; // between an event and what it makes us fetch
const TURN_MS = 30_000; // between two looks at times and at the session's end
const SOON_S = 180; // seconds before a session's end at which its reader is told
const MOST_SAID = 3; // changes that are said one by one
let begun = Date.now(); // when what is shown was made
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
let hush = 0; // the timer that takes away what was said last
const say = (text) => {
  clearTimeout(hush);
  document.getElementById("said").textContent = text;
  if (text) hush = setTimeout(() => say(""), 8000);
};

// Swapping: a whole page is fetched, and the parts that have an id and changed are put in the place of those here.
async function fetched(address, options) {
  const answer = await fetch(address, { credentials: "same-origin", ...options });
  if (!(answer.headers.get("content-type") || "").startsWith("text/html")) throw new Error("no page");
  return { answer, page: new DOMParser().parseFromString(await answer.text(), "text/html") };
}

function replace(page) {
  for (const part of ["#content", ".bar"]) {
    const [old, newer] = [document.querySelector(part), page.querySelector(part)];
    if (old && newer) old.replaceWith(document.adoptNode(newer));
  }
  for (const name of ["live", "until"]) {
    if (name in page.body.dataset) document.body.dataset[name] = page.body.dataset[name];
    else delete document.body.dataset[name];
  }
  document.title = page.title;
  begun = Date.now();
  enhance();
  follow();
}

// What a reader did to a part stays with it: what is open, scrolled, sorted and filtered, and where the keyboard is.
function kept(part) {
  const places = (within) => all("a[href], button, summary, [tabindex]", within);
  const active = document.activeElement, at = places(part).indexOf(active), href = active?.getAttribute("href");
  const open = all("details", part).map((item) => item.open), aside = all(".wide", part).map((item) => item.scrollLeft);
  const wanted = all("input[data-filter]", part).map((input) => input.value);
  const order = all("table[data-sort]", part).map((table) => table.querySelector("th[aria-sort]"));
  return (newer) => {
    all("details", newer).forEach((item, index) => { item.open = open[index] ?? item.open; });
    all("table[data-sort]", newer).forEach((table, index) => {
      const button = table.tHead?.rows[0].cells[order[index]?.cellIndex]?.querySelector("button");
      for (let left = order[index]?.getAttribute("aria-sort") === "descending" ? 2 : 1; left > 0; left--) button?.click();
    });
    all("input[data-filter]", newer).forEach((input, index) => { input.value = wanted[index] ?? ""; });
    all(".wide", newer).forEach((item, index) => { item.scrollLeft = aside[index] ?? 0; });
    if (at < 0) return;
    const now = places(newer), same = now[at]?.getAttribute("href") === href ? now[at] : now.find((place) => href && place.getAttribute("href") === href);
    (same ?? now[at])?.focus({ preventScroll: true });
  };
}

// What came and what went is said, and nothing else: who listens would hear all of a part that is swapped again.
const sayings = (part) => all("[data-says]", part).map((item) => item.dataset.says);
function news(old, newer) {
  const [before, after] = [sayings(old), sayings(newer)];
  const came = after.filter((text) => !before.includes(text)), went = before.filter((text) => !after.includes(text));
  return [...came, ...went.map((text) => `Over: ${text}`)];
}

const busy = (part) => part.contains(document.activeElement) && document.activeElement.matches("input, select, textarea");
async function refresh() {
  if (document.querySelector("dialog[open]")) return;
  const { answer, page } = await fetched(location.href, { headers: { "x-live": "1" } });
  if (!answer.ok || answer.redirected) return location.reload();
  const told = [];
  for (const part of all("[data-fragment]")) {
    const newer = page.getElementById(part.id);
    if (newer && newer.outerHTML !== part.dataset.was && !busy(part)) {
      const was = newer.outerHTML, keep = kept(part);
      told.push(...news(part, newer));
      part.replaceWith(document.adoptNode(newer));
      newer.dataset.was = was;
      if (part.dataset.was && part.dataset.was !== was) newer.classList.add("fresh");
      enhance(newer);
      keep(newer);
    }
  }
  if (told.length) say(told.slice(0, MOST_SAID).join(" ") + (told.length > MOST_SAID ? ` And ${told.length - MOST_SAID} more.` : ""));
  for (const input of all("input[data-filter]")) if (input.value) input.dispatchEvent(new Event("input"));
}

// Live: the stream says that something changed, never what; what this reader may see comes with the page.
let stream = null, waiting = 0;
function follow() {
  const address = document.body.dataset.live;
  if (stream && stream.address === address) return;
  stream?.source.close();
  stream = null;
  if (!address) return;
  stream = { address, source: new EventSource(address) };
  const shown = document.querySelector("[data-live-state]");
  const tell = (text) => { if (shown) { shown.hidden = false; shown.textContent = text; } };
  stream.source.addEventListener("open", () => tell("· live"));
  stream.source.addEventListener("error", () => tell("· not live, trying again"));
  stream.source.addEventListener("change", () => { clearTimeout(waiting); waiting = setTimeout(() => refresh().catch(() => tell("· not live")), WAIT_MS); });
  stream.source.addEventListener("end", () => { stream.source.close(); location.reload(); });
}

// Forms: sent in the background, answered by a page; where that fails they are sent as any form is.
document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (event.defaultPrevented || form.method !== "post" || form.dataset.plain !== undefined) return;
  event.preventDefault();
  const data = new URLSearchParams(new FormData(form, event.submitter));
  const buttons = all("button", form).filter((button) => !button.disabled);
  for (const button of buttons) button.disabled = true;
  try {
    const { answer, page } = await fetched(form.action, { method: "post", body: data });
    if (answer.redirected) history[answer.url === location.href ? "replaceState" : "pushState"](null, "", answer.url);
    const told = page.querySelector(".notice:not([hidden])")?.textContent.trim().replace(/\s+/g, " ") || "Done.";
    replace(page);
    document.getElementById("content").focus();
    say(told);
  } catch {
    for (const button of buttons) button.disabled = false;
    say("Not sent: the server did not answer. Nothing is known to have changed; try again.");
  }
});
addEventListener("popstate", () => location.reload());

// A stream holds one of the few connections that a browser has to a server: a page that nobody sees gives it back.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) { stream?.source.close(); stream = null; } else { follow(); refresh().catch(() => {}); }
});

// A link that signs in brings its token behind #, where no server and no log sees it; a person presses the button.
function linked() {
  const field = document.querySelector("[data-sign-in] input[name=token]");
  if (!field || !/^#clss_[A-Za-z0-9_-]+$/.test(location.hash)) return;
  field.value = location.hash.slice(1);
  document.getElementById("linked").hidden = false;
  history.replaceState(null, "", location.pathname + location.search);
}

// Dialogs, tables, filters.
document.addEventListener("click", (event) => {
  const opener = event.target.closest("[data-dialog]");
  if (opener) { event.preventDefault(); document.getElementById(opener.dataset.dialog)?.showModal(); }
  const back = event.target.closest("[data-back]");
  if (back) { event.preventDefault(); location.reload(); }
  const skip = event.target.closest("a.skip");
  if (skip) { event.preventDefault(); document.querySelector(skip.hash).focus(); }
  const closer = event.target.closest("[data-close]");
  if (closer?.closest("dialog[open]")) { event.preventDefault(); closer.closest("dialog").close(); }
});
document.addEventListener("keydown", (event) => {
  if (event.key === " " && event.target.matches?.("a[role=button]")) { event.preventDefault(); event.target.click(); }
});

function sortable(table) {
  for (const head of all("thead th", table)) {
    if (!head.textContent.trim() || head.querySelector("button")) continue;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending", column = head.cellIndex, body = table.tBodies[0];
      for (const other of all("thead th", table)) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = (row) => row.cells[column]?.dataset.value ?? row.cells[column]?.textContent.trim().replace(/(\d),(?=\d{3})/g, "$1") ?? "";
      const rows = [...body.rows].sort((one, two) => value(one).localeCompare(value(two), "en", { numeric: true }));
      body.append(...(down ? rows.reverse() : rows));
    });
  }
}

function filtering(input) {
  input.closest("[hidden]")?.removeAttribute("hidden");
  input.addEventListener("input", () => {
    const wanted = input.value.trim().toLowerCase();
    for (const row of all(`#${CSS.escape(input.dataset.filter)} tbody tr`)) row.hidden = !row.textContent.toLowerCase().includes(wanted);
  });
}

// Times go on while a page lies open.
const UNITS = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
function lasting(seconds) {
  const parts = [];
  let left = seconds;
  for (const [size, name] of UNITS) {
    if (left >= size && parts.length < 2) { parts.push(`${Math.floor(left / size)} ${name}`); left %= size; } else if (parts.length) break;
  }
  return parts.join(" ") || "0 s";
}
function turn() {
  const gone = Math.round((Date.now() - begun) / 1000);
  for (const time of all("time[data-relative]")) {
    const read = /^(in )?((?:\d+ (?:d|h|min|s) ?)+?)( ago)?$/.exec(time.dataset.was);
    if (!read) continue;
    const sum = [...read[2].matchAll(/(\d+) (d|h|min|s)/g)].reduce((total, [, count, name]) => total + count * UNITS.find((unit) => unit[1] === name)[0], 0);
    const from = (read[1] ? sum : -sum) - Math.round((Date.now() - Number(time.dataset.at)) / 1000);
    time.textContent = Math.abs(from) < 5 ? "now" : from > 0 ? `in ${lasting(from)}` : `${lasting(-from)} ago`;
  }
  const left = Number(document.body.dataset.until ?? "NaN") - gone;
  if (left <= 0) location.reload();
  else if (left < SOON_S) {
    const note = document.getElementById("session-ends");
    if (note?.hidden) { note.hidden = false; say(`Your session ends in ${lasting(left)}.`); }
  }
}
setInterval(turn, TURN_MS);

// Keys: two letters, the first g. They can be turned off, for who dictates to a computer says letters.
let first = "";
const keysAreOn = () => localStorage.getItem("cloister-keys") !== "off";
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !keysAreOn() || event.target.matches?.("input, select, textarea") || document.querySelector("dialog[open]")) return;
  if (event.key === "?") return help();
  if (event.key === "/") { const input = document.querySelector("input[type=search], input[data-filter]"); if (input) { event.preventDefault(); input.focus(); } return; }
  const wanted = `${first} ${event.key}`.trim();
  first = event.key === "g" ? "g" : "";
  document.querySelector(`[data-keys="${CSS.escape(wanted)}"]`)?.click();
});

function help() {
  const dialog = document.createElement("dialog"), title = document.createElement("h2"), list = document.createElement("dl");
  title.textContent = "Keyboard";
  list.className = "keys";
  const lines = [...all("[data-keys]").map((link) => [link.dataset.keys, link.textContent]), ["/", "Search this page"], ["?", "This list"], ["Esc", "Close"]];
  for (const [keys, text] of lines) {
    const name = document.createElement("dt"), what = document.createElement("dd");
    for (const key of keys.split(" ")) { const box = document.createElement("kbd"); box.textContent = key; name.append(box, " "); }
    what.textContent = text;
    list.append(name, what);
  }
  const label = document.createElement("label"), box = document.createElement("input"), close = document.createElement("button");
  box.type = "checkbox";
  box.checked = keysAreOn();
  box.addEventListener("change", () => localStorage.setItem("cloister-keys", box.checked ? "on" : "off"));
  label.append(box, " Keys of one letter work");
  close.textContent = "Close";
  close.addEventListener("click", () => dialog.close());
  dialog.setAttribute("aria-label", "Keyboard");
  dialog.addEventListener("close", () => dialog.remove());
  dialog.append(title, list, label, close);
  document.body.append(dialog);
  dialog.showModal();
}

// Light and dark: a cookie, so that the next page comes in the right colours at once.
function theme() {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  document.cookie = `cloister-theme=${root.dataset.theme}; Path=/; Max-Age=31536000; SameSite=Strict; Secure`;
}

function enhance(within = document) {
  for (const time of all("time[data-relative]", within)) { time.dataset.was = time.textContent; time.dataset.at = String(Date.now()); }
  for (const table of all("table[data-sort]", within)) sortable(table);
  for (const input of all("input[data-filter]", within)) filtering(input);
  for (const button of all("[data-theme-toggle]", within)) { button.hidden = false; button.onclick = theme; }
  for (const button of all("[data-keys-help]", within)) { button.hidden = false; button.onclick = help; }
}

enhance();
linked();
follow();
