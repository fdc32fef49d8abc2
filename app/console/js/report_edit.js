// A report becomes an edit: the form, filled in with what the reporter wants, and a preview of where
// the edit would apply, before it is made.

import { post } from "./api.js";
import { busy, fill, h } from "./dom.js";
import { committed, makeEdit } from "./edit_making.js";
import { pictureOf } from "./feedback_api.js";
import { emptyBox, errorBox, loading } from "./parts.js";
import { columns, reachPanel } from "./reach.js";

const SHOWN = 6;

export function reportEditForm(report, closed) {
  const scope = { rephrases: [], not_for: [] };
  const outcome = h("div", { "aria-live": "polite" });
  const preview = h("div", { class: "stack" });
  const target = h("input", { id: "report-target", type: "text", required: true, value: report.correction ?? "" });
  const note = h("input", { id: "report-note", type: "text", maxlength: "2000", value: (report.comment ?? "").slice(0, 2000) });
  const texts = {
    rephrases: h("textarea", { id: "report-rephrases", rows: "2" }),
    not_for: h("textarea", { id: "report-not-for", rows: "2" }),
  };
  const send = h("button", { type: "submit", class: "primary" }, "Make the edit");

  function readScope() {
    for (const [name, field] of Object.entries(texts)) {
      scope[name] = field.value.split("\n").map((line) => line.trim()).filter(Boolean);
    }
  }

  async function look() {
    readScope();
    if (!preview.childNodes.length) fill(preview, loading("Looking at questions near it"));
    try {
      const reach = await post("scope/preview", { prompt: report.prompt, ...scope, limit: SHOWN });
      fill(preview, columns(reach, change));
    } catch (error) {
      fill(preview, error.code === "no_question_encoder"
        ? emptyBox("explain", "This cannot be told beforehand", error.message)
        : errorBox(error));
    }
  }

  // "This too" and "not this" change the form: the edit is not there yet.
  async function change(button, changes) {
    for (const [name, questions] of Object.entries(changes)) {
      const other = name === "rephrases" ? "not_for" : "rephrases";
      texts[other].value = texts[other].value.split("\n").filter((line) => !questions.includes(line.trim())).join("\n");
      texts[name].value = [texts[name].value.trim(), ...questions].filter(Boolean).join("\n");
    }
    await busy(button, look);
  }

  async function make() {
    readScope();
    const image = await pictureOf(report);
    const order = { image, prompt: report.prompt, target: target.value.trim(), ...scope, ...(note.value.trim() && { note: note.value.trim() }) };
    await makeEdit(order, {
      place: outcome,
      isCurrent: () => outcome.isConnected,
      onCommitted: (made) => closed({ by: "edit", edit_id: made.id }, `Resolved by an edit: version ${made.version}.`,
        committed(made), reachPanel(made.id)),
    });
  }

  for (const field of Object.values(texts)) field.onchange = look;
  look();
  return h("form", { class: "card stack", "aria-labelledby": "report-edit-title", autocomplete: "off", onsubmit: (event) => {
    event.preventDefault();
    busy(send, () => make().catch((error) => fill(outcome, errorBox(error))));
  } },
    h("h2", { class: "card-title", id: "report-edit-title" }, "Make it an edit"),
    h("div", { class: "field" }, h("label", { for: "report-target" }, "The right answer"), target),
    h("div", { class: "field" }, h("label", { for: "report-note" }, "Note"), note),
    h("div", { class: "field-row" },
      h("div", { class: "field" }, h("label", { for: "report-rephrases" }, "Other wordings that must get it too, one a line"), texts.rephrases),
      h("div", { class: "field" }, h("label", { for: "report-not-for" }, "Questions that it must leave alone, one a line"), texts.not_for)),
    h("p", { class: "row" }, send, h("span", { class: "muted small" }, "It is tried first, takes effect at once, and can be taken back.")),
    outcome,
    h("h3", {}, "Where it would apply"),
    preview);
}
