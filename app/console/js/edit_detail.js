// One edit in full: what it is, how it stands, what happened to it, and the ways to change that.

import { busy, fill, h, icon } from "./dom.js";
import { askReason, toast } from "./dialogs.js";
import { cancel, freshEdit, reinstate, rollBack } from "./edits_api.js";
import { eventText } from "./event_text.js";
import { short, usedText, whole } from "./format.js";
import { beforeAfter, errorBox, loading, statusChip, verification, when } from "./parts.js";
import { wholePicture } from "./pictures.js";
import { reachPanel } from "./reach.js";

const EDITABLE = ["active", "superseded"];

// Shown again, only what may have changed is drawn anew: a question that somebody just looked up
// stays where it is.
export async function showEdit(place, id) {
  if (place.dataset.edit !== id) {
    fill(place, loading());
    place.dataset.edit = id;
    delete place.dataset.status;
  }
  try {
    const edit = await freshEdit(id);
    if (place.dataset.edit !== id) return;
    if (place.dataset.status !== edit.status) {
      place.dataset.status = edit.status;
      const reach = EDITABLE.includes(edit.status) ? reachPanel(id) : null;
      fill(place, back(), h("div", { class: "stack" }), reach);
    }
    fill(place.children[1], about(place, edit), history(edit));
  } catch (error) {
    if (place.dataset.edit === id) fill(place, back(), errorBox(error));
  }
}

const back = () => h("p", { class: "only-narrow" }, h("a", { class: "button small", href: "#/edits" }, icon("back"), "All edits"));

function about(place, edit) {
  const problem = h("div", { "aria-live": "polite" });
  return h("article", { class: "card stack", "aria-labelledby": "edit-title" },
    h("div", { class: "row spread" },
      h("h2", { id: "edit-title", class: "edit-title", tabindex: "-1" }, edit.prompt), statusChip(edit.status)),
    h("div", { class: "edit-about" },
      wholePicture(edit),
      h("div", { class: "stack" }, beforeAfter(edit.before, edit.target), facts(edit))),
    edit.error ? errorBox(edit.error) : null,
    (edit.warnings ?? []).map((warning) => h("p", { class: "notice warn" }, icon("warning"), warning.message)),
    edit.version === null ? null : h("details", {}, h("summary", {}, "What verification asked"), verification(edit)),
    problem,
    h("p", { class: "row" }, actions(edit, async (work, told) => {
      fill(problem);
      try {
        const done = await work();
        if (done) toast(`${told}${done.version ? `: version ${done.version}` : ""}.`);
        await showEdit(place, edit.id);
        if (done) place.querySelector("#edit-title").focus();
      } catch (error) {
        fill(problem, errorBox(error));
      }
    })));
}

function facts(edit) {
  const rows = [
    ["Made", h("span", {}, whole(edit.created_at), " by ", h("strong", {}, edit.created_by))],
    ["Version", edit.version ?? "none"],
    ["Used", usedText(edit.fired)],
    ["Editor", edit.editor],
    ["Note", edit.note],
    ["Tags", edit.tags.join(", ")],
    ["Replaces", edit.supersedes.length ? edit.supersedes.map((id) => h("a", { href: `#/edits/${id}` }, `${id} `)) : ""],
    ["Id", h("code", {}, edit.id)],
    ["Picture", h("code", { title: edit.image_digest }, short(edit.image_digest))],
  ];
  return h("dl", { class: "facts" }, rows.filter(([, value]) => value !== null && value !== "")
    .map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]).flat());
}

function actions(edit, run) {
  const button = (name, className, work, told) => h("button", { type: "button", class: className,
    onclick: (event) => busy(event.target, () => run(work, told)) }, name);
  const withReason = (title, text, action, change) => async () => {
    const reason = await askReason({ title, text, action });
    return reason === null ? null : change(edit.id, reason);
  };
  if (edit.status === "pending") return button("Cancel it", "", () => cancel(edit.id), "Cancelled");
  if (edit.version === null) return null;
  if (edit.status === "rolled_back") {
    return button("Reinstate", "primary", withReason("Put this edit back?",
      `"${edit.prompt}" will be answered "${edit.target}" again.`, "Reinstate", reinstate), "Put back");
  }
  return button("Roll back", "danger", withReason("Take this edit back?",
    "Answers will be those from before it. Nothing is deleted: it can be put back.", "Roll back", rollBack), "Taken back");
}

function history(edit) {
  if (!edit.history?.length) return null;
  return h("section", { class: "card stack", "aria-labelledby": "edit-history-title" },
    h("h2", { class: "card-title", id: "edit-history-title" }, "What happened to it"),
    h("ol", { class: "events" }, edit.history.map((event) => h("li", {},
      h("p", {}, h("strong", {}, eventText(event)), ` · version ${event.version}`),
      h("p", { class: "muted small" }, event.actor, " · ", when(event.at)),
      event.reason ? h("p", { class: "reason" }, event.reason) : null))));
}
