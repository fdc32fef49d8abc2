// Two answers side by side, as they come in: with edits, and the base model's.

import { byId, fill, h } from "./dom.js";
import { edit } from "./edits_api.js";
import { count, millis } from "./format.js";
import { measured } from "./measured.js";
import { bar, editLine, errorBox } from "./parts.js";
import { onUpdate } from "./state.js";

export function startAnswers() {
  let running = new AbortController();
  const current = { text: null, id: null };

  async function ask({ request, isCompared, events }) {
    running.abort();
    running = new AbortController();
    const { signal } = running;
    current.text = current.id = null;
    begin(isCompared);
    try {
      const edited = answer(events("generate", request, { signal }), "answer");
      const base = isCompared
        ? answer(events("generate", { ...request, edits: "off" }, { signal }), "base")
        : null;
      const [tail] = await Promise.all([edited, base]);
      current.text = byId("answer-text").textContent;
      current.id = tail.id;
      byId("correct-row").hidden = false;
      byId("correct-button").hidden = !request.image;
      await showFired(tail, Boolean(request.image));
    } catch (error) {
      if (error.name === "AbortError") return;
      byId("answers").hidden = true;
      fill(byId("ask-error"), errorBox(error));
    }
  }

  // Another picture or question: what is shown answers neither, and must not be corrected.
  onUpdate((_, changes) => {
    if (!changes.picture && changes.question === undefined) return;
    running.abort();
    byId("answers").hidden = true;
  });

  return { ask, current };
}

function begin(isCompared) {
  fill(byId("ask-error"));
  byId("guide").hidden = true;
  byId("answers").hidden = false;
  byId("base-card").hidden = !isCompared;
  byId("answer-cards").classList.toggle("single", !isCompared);
  byId("correct-row").hidden = true;
  fill(byId("fired"));
  for (const which of ["answer", "base"]) {
    document.getElementById(`${which}-text`).textContent = "";
    document.getElementById(`${which}-text`).classList.add("coming");
    document.getElementById(`${which}-note`).textContent = "";
  }
}

// Returns the last event of the stream: all of the answer but its text.
async function answer(stream, which) {
  const text = document.getElementById(`${which}-text`);
  const note = document.getElementById(`${which}-note`);
  const began = performance.now();
  let tail = null;
  try {
    for await (const event of stream) {
      if (event.delta !== undefined) text.append(event.delta);
      else tail = event;
    }
  } finally {
    text.classList.remove("coming");
  }
  const took = performance.now() - began;
  measured(took, tail.usage.completion_tokens);
  if (text.textContent === "") text.textContent = "(no words)";
  const cut = tail.finish_reason === "length" ? ", cut at its longest" : "";
  note.textContent = `${count(tail.usage.completion_tokens, "token")} in ${millis(took)}${cut} · version ${tail.version}`;
  return tail;
}

async function showFired(tail, hasPicture) {
  if (!tail.applied.length) {
    const why = hasPicture
      ? "None: this is what the base model says by itself."
      : "None: questions without a picture are never edited.";
    fill(byId("fired"), h("p", { class: "muted" }, why));
    return;
  }
  const edits = await Promise.all(tail.applied.map((each) => edit(each.edit_id)));
  fill(byId("fired"), h("div", { class: "lines" }, edits.map((each, at) => {
    const { image_similarity, text_similarity, weight } = tail.applied[at];
    return editLine(each, h("div", { class: "bars" },
      bar("Picture", image_similarity), bar("Words", text_similarity), bar("Weight", weight)));
  })));
}
