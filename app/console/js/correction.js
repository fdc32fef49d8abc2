// "Correct this": the form, the edit being made, and what came of it.

import { byId, busy, fill, h } from "./dom.js";
import { committed, makeEdit } from "./edit_making.js";
import { suggestedAnswer } from "./picture_input.js";
import { reachPanel } from "./reach.js";
import { onUpdate, state } from "./state.js";

export function startCorrection({ answers, askAgain }) {
  const form = byId("correct-form");
  byId("correct-button").onclick = () => {
    const { question } = state;
    byId("correct-about").textContent = `"${question}" is answered "${answers.current.text}".`;
    const suggested = suggestedAnswer(question);
    fill(byId("target-suggestions"), suggested && [h("span", { class: "muted small" }, "To try it out:"), h("button",
      { type: "button", class: "chip-button", onclick: () => { byId("target").value = suggested; } }, suggested)]);
    byId("target").value = "";
    form.hidden = false;
    byId("correct-row").hidden = true;
    form.scrollIntoView({ block: "nearest" });
    byId("target").focus({ preventScroll: true });
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

async function send(order, { form, askAgain }) {
  const { question, picture } = state;
  await makeEdit(order, {
    place: byId("correct-outcome"),
    isCurrent: () => question === state.question && picture === state.picture,
    onCommitted: async (made) => {
      form.hidden = true;
      for (const id of ["rephrases", "not-for", "tags", "note"]) document.getElementById(id).value = "";
      await askAgain(); // it clears what is below, so the outcome is put there afterwards
      fill(byId("correct-outcome"), committed(made));
      fill(byId("try-reach"), reachPanel(made.id));
    },
  });
}

function offerEditors(editors) {
  const chosen = byId("editor").value;
  const usual = Object.keys(editors).find((name) => editors[name].default);
  fill(byId("editor"), h("option", { value: "" }, usual ? `${usual} (usual)` : "As the server is set"),
    Object.keys(editors).filter((name) => name !== usual).map((name) => h("option", { value: name }, name)));
  byId("editor").value = chosen;
}
