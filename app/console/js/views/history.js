// History: every version, newest first, what it changed, and the way back to it.

import { get } from "../api.js";
import { askReason, toast } from "../dialogs.js";
import { busy, byId, fill, h } from "../dom.js";
import { edit as editById, restore } from "../edits_api.js";
import { eventText } from "../event_text.js";
import { clock, count, day, short } from "../format.js";
import { beforeAfter, emptyBox, errorBox, loading, statusName } from "../parts.js";
import { thumbnail } from "../pictures.js";
import { onUpdate } from "../state.js";

const PAGE = 30;
const MOST_CHANGES = 4;

let head = 0;
let oldest = 0; // the version below which nothing is shown yet

export const historyView = {
  start() {
    byId("history-more").onclick = (event) => busy(event.target, () => load({ isMore: true }));
    onUpdate((_, changes) => {
      if (changes.versions && !byId("view-history").hidden) load();
    });
  },
  enter() {
    load();
  },
};

// The log is read forwards: a page of the newest begins so many versions before the head.
async function load({ isMore = false } = {}) {
  const list = byId("history-list");
  if (!list.childNodes.length) fill(list, loading());
  try {
    if (!isMore) oldest = head = (await get("admin/events?limit=1")).version;
    const after = Math.max(0, oldest - PAGE);
    const { data } = oldest ? await get(`admin/events?after=${after}&limit=${oldest - after}`) : { data: [] };
    oldest = after;
    const lines = (await Promise.all(data.reverse().map(line))).flat();
    if (oldest === 0) lines.push(beginning());
    if (isMore) list.firstChild.append(...lines);
    else fill(list, h("ol", { class: "timeline" }, lines));
    markDays(list);
    byId("history-more").hidden = oldest === 0;
  } catch (error) {
    byId("history-more").hidden = true;
    fill(list, errorBox(error));
  }
}

// A heading goes before the first event of each day.
function markDays(list) {
  let previous = null;
  for (const item of list.querySelectorAll("li[data-day]")) {
    item.classList.toggle("new-day", item.dataset.day !== previous);
    previous = item.dataset.day;
  }
}

async function line(event) {
  const changes = await Promise.all(event.changes.slice(0, MOST_CHANGES).map(changeLine));
  const more = event.changes.length - MOST_CHANGES;
  return h("li", { class: `event ${event.type}`, "data-day": day(event.at) },
    h("p", { class: "day-name" }, day(event.at)),
    h("div", { class: "event-card" },
      h("div", { class: "event-head" },
        h("span", { class: "version" }, event.version),
        h("div", { class: "grow" }, h("p", {}, h("strong", {}, eventText(event))),
          h("p", { class: "muted small" }, `${event.actor} · ${clock(event.at)}`)),
        event.version === head ? h("span", { class: "chip accent" }, "Now") : restoreButton(event.version, eventText(event))),
      event.reason ? h("p", { class: "reason" }, event.reason) : null,
      changes,
      more > 0 ? h("p", { class: "muted small" }, `and ${count(more, "edit")} more`) : null,
      (event.scopes ?? []).map(scopeLine),
      h("p", { class: "muted small digest", title: event.digest }, `digest ${short(event.digest)}`)));
}

async function changeLine(change) {
  const edit = await editById(change.edit_id);
  const isNew = change.from === null;
  const isSame = change.from === change.to;
  return h("div", { class: "change" }, thumbnail(edit, "tiny"),
    h("div", { class: "grow" },
      h("p", {}, h("a", { href: `#/edits/${edit.id}` }, edit.prompt)),
      isNew ? beforeAfter(edit.before, edit.target) : h("p", { class: "muted small" }, edit.target)),
    (isNew && change.to === "active") || isSame ? null : h("span", { class: "muted small" }, `${statusName(change.from)} → ${statusName(change.to)}`));
}

function scopeLine(scope) {
  const named = (title, texts) => texts.length
    ? h("p", { class: "small" }, h("span", { class: "muted" }, `${title}: `), texts.join(" · "))
    : null;
  return h("div", {}, named("For", scope.rephrases), named("Not for", scope.not_for));
}

function beginning() {
  return h("li", { class: "event base" }, h("div", { class: "event-card" },
    h("div", { class: "event-head" },
      h("span", { class: "version" }, 0),
      h("div", { class: "grow" }, h("p", {}, h("strong", {}, "The base model")), h("p", { class: "muted small" }, "Without any edit")),
      head === 0 ? h("span", { class: "chip accent" }, "Now") : restoreButton(0, "the base model")),
    head === 0 ? emptyBox("history", "Nothing happened yet", "The first correction will be version 1.") : null));
}

function restoreButton(version, name) {
  return h("button", { type: "button", class: "small", "aria-label": `Restore to here: version ${version}, ${name}`,
    onclick: (event) => restoreTo(event.target, version) }, "Restore to here");
}

async function restoreTo(button, version) {
  const since = head - version;
  const reason = await askReason({
    title: version === 0 ? "Return to the base model?" : `Restore version ${version}?`,
    text: `${count(since, "later change")} will no longer count. That is a new version itself, so it can be undone.`,
    action: "Restore",
  });
  if (reason === null) return;
  await busy(button, async () => {
    try {
      const done = await restore(version, reason, head);
      toast(done.changed ? restored(done) : "Everything is so already.");
      byId("history-title").focus();
    } catch (error) {
      button.closest(".event-card").append(errorBox(error));
    }
  });
}

function restored(done) {
  const parts = [[done.rolled_back, "taken back"], [done.reinstated, "put back"], [done.superseded, "superseded"]];
  const told = parts.filter(([ids]) => ids.length).map(([ids, what]) => `${ids.length} ${what}`);
  return `Version ${done.version}: ${told.join(", ") || "scopes are those of then"}.`;
}
