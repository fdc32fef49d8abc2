// Try: a picture and a question; the answer with edits beside the base model's; its correction.

import { events } from "../api.js";
import { startAnswers } from "../answers.js";
import { startCorrection } from "../correction.js";
import { byId, fill, h } from "../dom.js";
import { startPicture } from "../picture_input.js";
import { startReporting } from "../reporting.js";
import { onUpdate, state, update } from "../state.js";

export const tryView = {
  start() {
    const answers = startAnswers();
    const ask = (question) => askNow(answers, question);
    startCorrection({ answers, askAgain: () => ask(state.question) });
    startReporting({ answers });
    startPicture({ isShown: () => !byId("view-try").hidden });
    byId("ask-form").onsubmit = (event) => {
      event.preventDefault();
      ask(byId("question").value.trim());
    };
    onUpdate((_, changes) => {
      if (changes.picture) suggest(ask);
    });
  },

  enter() {
    if (byId("question").value === "") byId("question").value = state.question;
  },
};

async function askNow(answers, question) {
  if (!question) return;
  byId("question").value = question;
  update({ question });
  await answers.ask({
    request: { prompt: question, ...(state.picture && { image: state.picture.uri }) },
    isCompared: byId("compare").checked,
    events,
  });
}

function suggest(ask) {
  const questions = state.picture?.questions ?? [];
  fill(byId("suggestions"), questions.map((question) =>
    h("button", { type: "button", class: "chip-button", onclick: () => ask(question) }, question)));
}
