// Review: what people reported, as a list; and one report, with what can be done about it.

import { byId, fill, h } from "../dom.js";
import { page } from "../feedback_api.js";
import { emptyBox, errorBox, loading, reportChip, reportTexts, when } from "../parts.js";
import { reportPicture } from "../pictures.js";
import { act, showReport } from "../report_detail.js";

const PAGE = 20;
const ACTIONS = { e: "edit", s: "scope", d: "dismiss" };

let asked = 0; // which request is the newest: answers of older ones are not shown
let last = null;
let chosen = null;

export const reviewView = {
  start() {
    byId("review-status").onchange = () => load();
    byId("review-filters").onsubmit = (event) => event.preventDefault();
    byId("review-more").onclick = () => load({ isMore: true });
  },

  enter([id]) {
    chosen = id ?? null;
    byId("review-master").classList.toggle("open", chosen !== null);
    byId("report-detail").hidden = chosen === null;
    if (chosen !== null) showReport(byId("report-detail"), chosen, { onClosed: () => load() });
    load();
  },

  key(event) {
    if (event.key === "j" || event.key === "k") go(event.key === "j" ? 1 : -1);
    else if (Object.hasOwn(ACTIONS, event.key) && chosen !== null && act(byId("report-detail"), ACTIONS[event.key])) {
      event.preventDefault(); // the letter is no part of the field that is focused now
    }
  },
};

// The report so many lines further down, or the first.
function go(step) {
  const ids = [...byId("review-list").querySelectorAll("li")].map((line) => line.dataset.report);
  if (!ids.length) return;
  const at = ids.indexOf(chosen);
  const next = at < 0 ? 0 : Math.max(0, Math.min(ids.length - 1, at + step));
  window.location.hash = `#/review/${ids[next]}`;
}

async function load({ isMore = false } = {}) {
  const request = ++asked;
  const list = byId("review-list");
  if (!list.childNodes.length) fill(list, loading());
  try {
    const found = await page({ limit: PAGE, status: byId("review-status").value, ...(isMore && { after: last }) });
    if (request !== asked) return;
    last = found.last_id;
    byId("review-more").hidden = !found.has_more;
    const lines = found.data.map(line);
    if (isMore) list.firstChild.append(...lines);
    else fill(list, lines.length ? h("ul", { class: "edit-list" }, lines) : nothing());
    const shown = list.querySelectorAll("li").length;
    byId("review-count").textContent = shown ? `${shown}${found.has_more ? " of more" : ""}, newest first` : "";
  } catch (error) {
    if (request !== asked) return;
    byId("review-more").hidden = true;
    byId("review-count").textContent = "";
    fill(list, errorBox(error));
  }
}

function line(report) {
  const item = h("li", { "data-report": report.id }, h("div", { class: "edit-line" },
    reportPicture(report),
    h("div", { class: "grow stack tight" },
      h("p", { class: "edit-question" }, h("a", { href: `#/review/${report.id}` }, report.prompt)),
      reportTexts(report),
      h("div", { class: "row meta" }, reportChip(report),
        h("span", { class: "muted small" }, report.source ?? report.created_by, " · ", when(report.created_at))))));
  if (report.id === chosen) {
    item.classList.add("chosen");
    item.querySelector("a").setAttribute("aria-current", "true");
  }
  return item;
}

function nothing() {
  if (byId("review-status").value === "open") {
    return emptyBox("review", "Nothing waits", "Whoever asks can report an answer. It waits here until somebody looks at it.",
      h("p", {}, h("a", { class: "button", href: "#/try" }, "Ask something")));
  }
  return emptyBox("review", "No report is like that", "Show all of them, or those that are open.",
    h("p", {}, h("button", { type: "button", onclick: () => {
      byId("review-filters").reset();
      load();
    } }, "Show open ones")));
}
