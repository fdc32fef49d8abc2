// Where an edit will apply: wordings that will and questions that will not, each with a way to
// say otherwise. "This too" and "not this" change the edit's scope at once.

import { post } from "./api.js";
import { busy, fill, h, icon } from "./dom.js";
import { toast } from "./dialogs.js";
import { edit as editById, rescope } from "./edits_api.js";
import { bar, damages, emptyBox, errorBox, loading } from "./parts.js";

const SHOWN = 6;
const MOST_ASKED = 8;

export function reachPanel(editId) {
  const asked = []; // questions of one's own, newest first
  const body = h("div", { class: "stack" });
  const problem = h("div", { "aria-live": "polite" });
  const title = h("h2", { class: "card-title", id: "reach-title", tabindex: "-1" }, "Where it will apply");

  let latest = 0; // an older answer that comes late is not shown

  async function refresh() {
    const mine = ++latest;
    if (!body.childNodes.length) fill(body, loading("Looking at questions near it"));
    try {
      const [edit, reach] = await Promise.all([
        editById(editId),
        post("scope/preview", { edit_id: editId, questions: asked, limit: SHOWN }),
      ]);
      if (mine !== latest) return;
      const change = ["active", "superseded"].includes(edit.status) ? changing : null;
      // One form for good: what is being typed outlives a refresh.
      fill(body, ownScope(edit, change), form, askedList(reach, change), columns(reach, change));
    } catch (error) {
      fill(body, error.code === "no_question_encoder"
        ? emptyBox("explain", "This server cannot say beforehand", error.message)
        : errorBox(error));
    }
  }

  async function changing(button, change, told) {
    fill(problem);
    await busy(button, async () => {
      try {
        const done = await rescope(editId, change);
        toast(`${told}: version ${done.version}.`);
        await refresh();
        title.focus();
      } catch (error) {
        fill(problem, refused(error, change, told));
      }
    });
  }

  function refused(error, change, told) {
    const isTried = ["edit_not_effective", "edit_conflicts"].includes(error.code);
    return errorBox(error, damages(error.details?.damaged), isTried
      ? h("p", {}, h("button", { type: "button",
          onclick: (event) => changing(event.target, { ...change, verify: "report" }, told) }, "Change it all the same"))
      : null);
  }

  function askForm() {
    const field = h("input", { type: "text", id: "reach-question", required: true, autocomplete: "off",
      placeholder: "Would it answer this?" });
    return h("form", { class: "field", onsubmit: async (event) => {
      event.preventDefault();
      const question = field.value.trim();
      if (!question) return;
      if (asked.includes(question)) asked.splice(asked.indexOf(question), 1);
      asked.unshift(question);
      asked.length = Math.min(asked.length, MOST_ASKED);
      field.value = "";
      await busy(event.submitter, refresh);
      field.focus();
    } },
      h("label", { for: "reach-question" }, "A question of your own"),
      h("div", { class: "with-button" }, field, h("button", { type: "submit" }, "Look")));
  }

  const form = askForm();
  refresh();
  return h("section", { class: "card stack", "aria-labelledby": "reach-title" },
    title,
    h("p", { class: "muted" }, "Questions like it, which people might ask about pictures like this one. The mark on each bar says how near a question must be to get this answer. One that is nearer to another known question is left alone all the same."),
    problem, body);
}

// The wordings that somebody named, each of which can be taken away.
function ownScope(edit, change) {
  const chip = (text, field, told) => h("span", { class: "chip removable" }, text,
    change && h("button", { type: "button", class: "quiet", "aria-label": `Take away: ${text}`,
      onclick: (event) => change(event.currentTarget, { [field]: [text] }, told) }, icon("cross")));
  const row = (name, texts, field, told) => texts.length
    ? h("div", { class: "scope-row" }, h("span", { class: "muted small" }, name),
        h("div", { class: "chips" }, texts.map((text) => chip(text, field, told))))
    : null;
  if (!edit.rephrases.length && !edit.not_for.length) return null;
  return h("div", { class: "stack tight" },
    row("Named as its own", edit.rephrases, "remove_rephrases", "No longer named as its own"),
    row("Named as not its own", edit.not_for, "remove_not_for", "No longer kept from it"));
}

function askedList(reach, change) {
  if (!reach.asked.length) return null;
  return h("ul", { class: "reach-list", "aria-label": "Questions of your own" },
    reach.asked.map((each) => questionLine(each, reach.rho, change)));
}

// What will get the answer beside what will not; `change(button, scope, told)` says otherwise.
export function columns(reach, change) {
  const column = (title, tone, list, none) => h("div", { class: `reach-column ${tone}` },
    h("h3", {}, icon(tone === "good" ? "check" : "cross"), title),
    list.length
      ? h("ul", { class: "reach-list" }, list.map((each) => questionLine(each, reach.rho, change)))
      : h("p", { class: "muted" }, none));
  return h("div", { class: "halves" },
    column("Will get this answer", "good", reach.will, "None of the questions known to be near it."),
    column("Will be left alone", "neutral", reach.will_not, "None of the questions known to be near it."));
}

function questionLine(each, rho, change) {
  const [name, field, told] = each.applies
    ? ["Not this", "not_for", `"${each.question}" is kept from it`]
    : ["This too", "rephrases", `"${each.question}" gets the answer too`];
  return h("li", { class: each.applies ? "applies" : "" },
    h("div", { class: "grow" },
      h("p", {}, each.question),
      each.excluded ? h("p", { class: "muted small" }, "Nearer to another question") : null,
      bar("", each.gate, { line: rho })),
    change && h("button", { type: "button", class: "small", "aria-label": `${name}: ${each.question}`,
      onclick: (event) => change(event.currentTarget, { [field]: [each.question] }, told) }, name));
}
