// Explain: every edit that was considered and why it was kept or dropped; where an answer rests.

import { post } from "../api.js";
import { busy, byId, fill, h } from "../dom.js";
import { edit as editById } from "../edits_api.js";
import { count, figure } from "../format.js";
import { bar, editLine, emptyBox, errorBox, loading } from "../parts.js";
import { refreshVersions, state, update } from "../state.js";

const OUTCOMES = {
  applied: ["Took part", "good", "Picture and words fit."],
  another_picture: ["Dropped", "neutral", "Side by side, this is another picture."],
  below_sentinel: ["Dropped", "neutral", "Seen more closely, the picture is another one."],
  below_text_gate: ["Dropped", "neutral", "The question is another one."],
  excluded: ["Dropped", "neutral", "The question is nearer to one that the edit is not for."],
  outweighed: ["Dropped", "neutral", "Another edit fits better, and has another answer."],
  ambiguous: ["Dropped", "warn", "Two edits with different answers fit alike, so neither took part."],
  inactive: ["Not in force", "neutral", "It would have been considered, but is not active in this version."],
};

const TOKENS = ["First", "Second", "Third", "Fourth"];

let explained = null; // what is shown now, so that coming back asks nothing again
let lastToken = TOKENS.length - 1; // known once a token is asked for that is not there

export const explainView = {
  start() {
    byId("explain-form").onsubmit = (event) => {
      event.preventDefault();
      update({ question: byId("explain-question").value.trim() });
      busy(byId("explain-button"), explain);
    };
  },
  enter() {
    const { picture, question } = state;
    byId("explain-body").hidden = !picture;
    fill(byId("explain-empty"), picture ? null : emptyBox("explain", "Nothing to explain yet",
      "Choose a picture and ask something. Then this page tells why it was answered so.",
      h("p", {}, h("a", { class: "button primary", href: "#/try" }, "Choose a picture"))));
    if (!picture) return;
    byId("explain-picture").src = picture.uri;
    byId("explain-question").value = question;
    if (question && (explained?.picture !== picture || explained.question !== question)) {
      busy(byId("explain-button"), explain);
    }
  },
};

async function explain() {
  const { picture, question } = state;
  explained = { picture, question };
  lastToken = TOKENS.length - 1;
  fill(byId("explain-error"));
  try {
    if (!state.versions) await refreshVersions();
    await Promise.all([candidates(), attribution(0)]);
  } catch (error) {
    explained = null;
    fill(byId("explain-error"), errorBox(error));
  }
}

async function candidates() {
  byId("explain-candidates-card").hidden = false;
  fill(byId("candidates"), loading("Asking, and noting who was considered"));
  const answer = await post("generate", { prompt: state.question, image: state.picture.uri, explain: true });
  const list = answer.candidates;
  byId("candidates-note").textContent =
    `The answer is "${answer.text}", by version ${answer.version}. ` +
    (list.length ? `The picture let ${count(list.length, "edit")} through.` : "");
  const edits = await Promise.all(list.map((each) => editById(each.edit_id)));
  fill(byId("candidates"), list.length
    ? h("div", { class: "lines" }, list.map((each, at) => candidateLine(each, edits[at])))
    : emptyBox("explain", "No edit was considered", "No corrected picture is like this one, so the base model answered by itself."));
}

function candidateLine(each, edit) {
  const [name, tone, why] = OUTCOMES[each.outcome];
  const { router, question_encoder } = state.versions;
  const rho = question_encoder?.rho ?? router.rho;
  const isWeighed = each.outcome !== "inactive";
  return editLine(edit,
    h("p", { class: "row" }, h("span", { class: `chip ${tone}` }, name), h("span", { class: "small" }, why)),
    each.matched && each.matched !== edit.prompt ? h("p", { class: "muted small" }, `Nearest wording: "${each.matched}"`) : null,
    h("div", { class: "bars" },
      bar("Picture", each.image_similarity, { line: router.tau, digits: 3 }),
      isWeighed ? bar("Words", each.text_similarity, { line: rho }) : null,
      isWeighed ? bar("Weight", each.weight) : null));
}

async function attribution(token) {
  byId("explain-attribution-card").hidden = false;
  const place = byId("attribution");
  if (!place.querySelector("figure")) fill(place, loading("Changing the picture a little at a time"));
  try {
    const found = await post("attributions", { prompt: state.question, image: state.picture.uri, token });
    fill(place, h("figure", { class: "attribution" },
      h("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "The attribution" }, h("img", { src: found.picture, alt: `Heat map over the picture, and a curve of what each layer adds to "${found.token_text}"` })),
      h("figcaption", { class: "muted" },
        `The base model says "${found.answer}". Shown is "${found.token_text}": where noise in the picture changes it most, `,
        `and what attention and MLP of each layer add. The curve recommends layer ${found.recommended_layer}. `,
        `Strongest influence of a patch: ${figure(Math.max(...found.influence.flat()))}, of 2 at most.`)));
    tokens(found.token);
  } catch (error) {
    if (error.code !== "answer_too_short") throw error;
    lastToken = token - 1;
    if (lastToken >= 0) return attribution(lastToken);
    fill(place, h("p", { class: "muted" }, "The base model says nothing, so there is nothing to explain."));
  }
}

function tokens(current) {
  fill(byId("attribution-tokens"), TOKENS.slice(0, lastToken + 1).map((name, at) =>
    h("button", { type: "button", class: "chip-button", "aria-pressed": String(at === current),
      onclick: (event) => busy(event.target, () => another(at)) }, `${name} token`)));
}

async function another(token) {
  try {
    await attribution(token);
  } catch (error) {
    fill(byId("explain-error"), errorBox(error));
  }
}
