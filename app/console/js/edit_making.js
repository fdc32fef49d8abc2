// An edit being made: how far it is, what came of it, and the ways on where it was refused.

import { busy, fill, h } from "./dom.js";
import { cancel, create } from "./edits_api.js";
import { beforeAfter, damages, errorBox, statusChip, verification } from "./parts.js";

// Makes the edit and shows in `place` how that goes. `isCurrent` says whether somebody still wants
// to see it; `onCommitted(edit)` is called when it is in force.
export async function makeEdit(order, { place, isCurrent, onCommitted }) {
  fill(place, h("p", { class: "loading", role: "status" }, "Making the edit, and trying it"));
  const again = (changes) => makeEdit({ ...order, ...changes }, { place, isCurrent, onCommitted });
  try {
    const made = await create(order, (edit) => fill(place, pending(edit)));
    if (!isCurrent()) return;
    if (made.version === null) {
      fill(place, failed(made.error ?? { message: `The edit is ${made.status}.` }, again));
      return;
    }
    await onCommitted(made);
  } catch (error) {
    fill(place, failed(error.details ?? error, again, error));
  }
}

export function committed(edit) {
  return h("section", { class: "card stack done", "aria-labelledby": "corrected-title" },
    h("div", { class: "row spread" },
      h("h2", { class: "card-title", id: "corrected-title", tabindex: "-1" }, `Corrected, in version ${edit.version}`),
      statusChip(edit.status)),
    beforeAfter(edit.before, edit.after ?? edit.target),
    verification(edit),
    (edit.warnings ?? []).map((warning) => h("p", { class: "notice warn" }, warning.message)),
    h("p", { class: "row" }, h("a", { class: "button", href: `#/edits/${edit.id}` }, "See the edit"),
      h("span", { class: "muted small" }, "There it can be taken back.")));
}

function pending(edit) {
  const names = { queue: "It waits for others", fit: "The expert is being made", verify: "It is being tried" };
  const { stage, done, total } = edit.progress ?? { stage: "queue", done: 0, total: null };
  const progress = h("progress", { "aria-label": names[stage] });
  if (total) Object.assign(progress, { max: total, value: done });
  return h("div", { class: "card stack" },
    h("p", {}, names[stage], total ? `: ${done} of ${total}` : ""),
    progress,
    h("p", {}, h("button", { type: "button", onclick: (event) => busy(event.target, () => cancel(edit.id)) }, "Cancel it")));
}

function failed(told, again, error) {
  const way = (changes, name) =>
    h("button", { type: "button", onclick: (event) => busy(event.target, () => again(changes)) }, name);
  const ways = [];
  if (told.conflicts_with) ways.push(way({ supersedes: told.conflicts_with }, "Replace the other edits"));
  if (["edit_not_effective", "edit_conflicts"].includes(told.code)) {
    ways.push(way({ verify: "report" }, "Keep it all the same"));
  }
  return errorBox(error ?? told,
    told.after !== undefined && told.after !== null ? beforeAfter(told.before, told.after) : null,
    damages(told.damaged),
    ways.length ? h("p", { class: "row" }, ways) : null);
}
