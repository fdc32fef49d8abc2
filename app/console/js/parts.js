// Pieces that several views are made of.

import { byId, h, icon } from "./dom.js";
import { ago, count, figure, said, whole } from "./format.js";
import { thumbnail } from "./pictures.js";

const STATUS = {
  active: ["Active", "good"],
  superseded: ["Superseded", "neutral"],
  rolled_back: ["Rolled back", "neutral"],
  pending: ["Pending", "accent"],
  failed: ["Failed", "bad"],
  cancelled: ["Cancelled", "neutral"],
  stale: ["Stale", "warn"],
  quarantined: ["Quarantined", "bad"],
};

export function statusChip(status) {
  const [name, tone] = STATUS[status] ?? [status, "neutral"];
  return h("span", { class: `chip ${tone}` }, name);
}

export const statusName = (status) => (STATUS[status]?.[0] ?? status ?? "New").toLowerCase();

const REPORT = { open: ["Open", "accent"], resolved: ["Resolved", "good"], dismissed: ["Dismissed", "neutral"] };

// How a report stands; an open one says what its reporter thinks of the answer.
export function reportChip(report) {
  const [name, tone] = REPORT[report.status];
  if (report.status !== "open") return h("span", { class: `chip ${tone}` }, name);
  return h("span", { class: `chip ${report.verdict === "wrong" ? "bad" : "good"}` }, report.verdict === "wrong" ? "Wrong" : "Right");
}

// What was answered, and what its reporter wants instead, if he said.
export function reportTexts(report) {
  if (report.correction !== null) return beforeAfter(report.answer, report.correction);
  return h("p", { class: "before-after" }, h("span", { class: "muted small" }, "Answered"), said(report.answer));
}

export const when = (at) => h("time", { datetime: at, title: whole(at) }, ago(at));

export function errorBox(error, ...more) {
  if (error.status === 403 && error.code === "insufficient_scope") {
    return emptyBox("key", "Your key may not do this", error.message, ...more);
  }
  if (error.status === 401) {
    return emptyBox("key", "This server asks for a key", "Enter one that it knows.",
      h("p", {}, h("button", { type: "button", class: "primary", onclick: () => byId("key-button").click() }, "Enter a key")));
  }
  return h("div", { class: "notice bad", role: "alert" },
    icon("warning"),
    h("div", { class: "stack tight" },
      h("p", {}, h("strong", {}, error.message)),
      error.hint ? h("p", { class: "small" }, error.hint) : null,
      ...more,
      error.details?.request_id
        ? h("p", { class: "muted small" }, `${error.code} · request ${error.details.request_id}`)
        : null,
    ),
  );
}

export function emptyBox(symbol, title, text, ...more) {
  return h("div", { class: "empty" }, icon(symbol, "big"), h("p", {}, h("strong", {}, title)), h("p", { class: "muted" }, text), ...more);
}

export const loading = (text = "Loading") => h("p", { class: "loading", role: "status" }, text);

// Struck out and written in, as a proofreader does.
export function beforeAfter(before, after) {
  return h("p", { class: "before-after" },
    before === null ? null : h("del", {}, h("span", { class: "visually-hidden" }, "Before: "), said(before)),
    before === null ? null : icon("arrow"),
    h("ins", {}, h("span", { class: "visually-hidden" }, "After: "), said(after)),
  );
}

// A bar from 0 to 1 with its figure; `line` marks what it has to reach.
export function bar(label, value, { line, digits = 2 } = {}) {
  const track = h("span", { class: "track", "aria-hidden": "true" }, h("span", { class: "level" }));
  track.firstChild.style.width = `${Math.max(0, Math.min(1, value)) * 100}%`;
  if (line !== undefined) {
    const mark = h("span", { class: "mark" });
    mark.style.left = `${line * 100}%`;
    track.append(mark);
  }
  const needed = line === undefined ? "" : `, needs ${figure(line, digits)}`;
  return h("span", { class: label ? "bar-figure" : "bar-figure bare" },
    label ? h("span", { class: "bar-label" }, label) : null,
    track,
    h("span", { class: "number" }, figure(value, digits), h("span", { class: "visually-hidden" }, needed)),
  );
}

// One edit as a line of a list: picture, question, what it changed, and whatever belongs below.
export function editLine(edit, ...below) {
  return h("div", { class: "edit-line" },
    thumbnail(edit),
    h("div", { class: "grow stack tight" },
      h("p", { class: "edit-question" }, h("a", { href: `#/edits/${edit.id}` }, edit.prompt)),
      beforeAfter(edit.before, edit.target),
      ...below,
    ),
  );
}

// What verification asked, and what came of it.
export function verification(edit) {
  if (edit.verified === null) {
    return h("p", { class: "notice warn" }, icon("warning"), "It was not tried: nobody asked for it to be verified.");
  }
  const others = edit.damaged.length;
  const items = [
    [edit.after === edit.target, `Its own question is answered "${said(edit.after)}"`],
    ...edit.rephrases.map((text) => [edit.verified, `So is "${text}"`]),
    ...edit.not_for.map((text) => [!damagedBy(edit, text), `"${text}" is answered as without it`]),
    [others === 0, others === 0
      ? "Stock questions about this picture and the nearest other edits are answered as before"
      : `${count(others, "other answer")} changed`],
  ];
  return h("div", { class: "stack tight" },
    h("ul", { class: "checks" }, items.map(([holds, text]) =>
      h("li", { class: holds ? "good" : "bad" }, icon(holds ? "check" : "cross"), h("span", {}, text)))),
    damages(edit.damaged),
    h("p", { class: "muted small" },
      `Checked beside the edits of version ${edit.verified_version}`,
      edit.refinement_steps ? `, after ${count(edit.refinement_steps, "gradient step")}.` : "."),
  );
}

const damagedBy = (edit, prompt) => edit.damaged.some((damage) => damage.prompt === prompt);

export function damages(list) {
  if (!list?.length) return null;
  return h("ul", { class: "damages" }, list.map((damage) =>
    h("li", {},
      damage.prompt ?? h("a", { href: `#/edits/${damage.edit_id}` }, "Another edit's question"),
      beforeAfter(damage.before, damage.after))));
}
