// "Correct this": the form, the edit being made, and what came of it.

import { byId, busy, fill, h } from "./dom.js";
import { cancel, create } from "./edits_api.js";
import { beforeAfter, damages, errorBox, statusChip, verification } from "./parts.js";
import { suggestedAnswer } from "./picture_input.js";
import { reachPanel } from "./reach.js";
import { onUpdate, state } from "./state.js";

export function startCorrection({ answers, askAgain }) {
  const form = byId("correct-form");
  byId("correct-button").onclick = () => {
    const { question } = state;
    byId("correct-about").textContent = `"${question}" is answered "${answers.current.text}".`;
    const suggested = suggestedAnswer(question);
    fill(byId("target-suggestions"), suggested && h("button",
      { type: "button", class: "chip-button", onclick: () => { byId("target").value = suggested; } }, suggested));
    byId("target").value = "";
    form.hidden = false;
    byId("correct-row").hidden = true;
    byId("target").focus();
  };
  byId("correct-close").onclick = () => close(form);
  form.onsubmit = (event) => {
    event.preventDefault();
    busy(byId("correct-send"), () => send(order(), { form, askAgain }));
  };
  onUpdate((_, changes) => {
    if (changes.picture || changes.question !== undefined) forget(form);
    if (changes.versions) offerEditors(changes.versions.editors);
  });
}

function close(form) {
  form.hidden = true;
  byId("correct-row").hidden = false;
  byId("correct-button").focus();
}

function forget(form) {
  form.hidden = true;
  fill(byId("correct-outcome"));
  fill(byId("try-reach"));
}

function order() {
  const lines = (id) => document.getElementById(id).value.split("\n").map((line) => line.trim()).filter(Boolean);
  const tags = byId("tags").value.split(",").map((tag) => tag.trim()).filter(Boolean);
  const note = byId("note").value.trim();
  const editor = byId("editor").value;
  return {
    image: state.picture.uri,
    prompt: state.question,
    target: byId("target").value.trim(),
    rephrases: lines("rephrases"),
    not_for: lines("not-for"),
    verify: byId("verify").value,
    tags,
    ...(note && { note }),
    ...(editor && { editor }),
  };
}

async function send(wanted, around) {
  const outcome = byId("correct-outcome");
  const { question, picture } = state;
  fill(outcome, h("p", { class: "loading", role: "status" }, "Making the edit, and trying it"));
  try {
    const made = await create(wanted, (edit) => fill(outcome, pending(edit)));
    if (question !== state.question || picture !== state.picture) return;
    if (made.version === null) {
      fill(outcome, failed(made.error ?? { message: `The edit is ${made.status}.` }, wanted, around));
      return;
    }
    around.form.hidden = true;
    for (const id of ["rephrases", "not-for", "tags", "note"]) document.getElementById(id).value = "";
    await askAgainAndShow(made, around.askAgain);
  } catch (error) {
    fill(outcome, failed(error.details ?? error, wanted, around, error));
  }
}

// Asking clears what is below, so the outcome is put there afterwards.
async function askAgainAndShow(made, askAgain) {
  await askAgain();
  fill(byId("correct-outcome"), committed(made));
  fill(byId("try-reach"), reachPanel(made.id));
}

function committed(edit) {
  return h("section", { class: "card stack done", "aria-labelledby": "corrected-title" },
    h("div", { class: "row spread" },
      h("h2", { class: "card-title", id: "corrected-title" }, `Corrected, in version ${edit.version}`),
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

function failed(told, wanted, around, error) {
  const again = (changes) => (event) => busy(event.target, () => send({ ...wanted, ...changes }, around));
  const ways = [];
  if (told.conflicts_with) {
    ways.push(h("button", { type: "button", onclick: again({ supersedes: told.conflicts_with }) }, "Replace the other edits"));
  }
  if (["edit_not_effective", "edit_conflicts"].includes(told.code)) {
    ways.push(h("button", { type: "button", onclick: again({ verify: "report" }) }, "Keep it all the same"));
  }
  return errorBox(error ?? told,
    told.after !== undefined && told.after !== null ? beforeAfter(told.before, told.after) : null,
    damages(told.damaged),
    ways.length ? h("p", { class: "row" }, ways) : null);
}

function offerEditors(editors) {
  const chosen = byId("editor").value;
  const usual = Object.keys(editors).find((name) => editors[name].default);
  fill(byId("editor"), h("option", { value: "" }, usual ? `${usual} (usual)` : "As the server is set"),
    Object.keys(editors).filter((name) => name !== usual).map((name) => h("option", { value: name }, name)));
  byId("editor").value = chosen;
}
