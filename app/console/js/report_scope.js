// A report is mended by an edit that is there already: the question is one it is for, or is not for.

import { post } from "./api.js";
import { busy, fill, h } from "./dom.js";
import { edit as editById, find, rescope } from "./edits_api.js";
import { pictureOf } from "./feedback_api.js";
import { damages, editLine, emptyBox, errorBox, loading, statusChip } from "./parts.js";

const SHOWN = 8;
const PAUSE_MS = 250;
const EDITABLE = ["active", "superseded"];

export function reportScopePanel(report, closed) {
  const list = h("div", {}, loading("Looking for edits of pictures like this one"));
  const problem = h("div", { "aria-live": "polite" });
  const search = h("input", { id: "report-search", type: "search", placeholder: "Words of question or answer" });
  let pause = 0;
  let asked = 0;

  search.oninput = () => {
    clearTimeout(pause);
    pause = setTimeout(() => offer(search.value.trim()), PAUSE_MS);
  };

  async function offer(text) {
    const request = ++asked;
    try {
      const edits = text ? await find({ q: text, limit: SHOWN }) : await near(report);
      if (request !== asked) return;
      const usable = edits.filter((each) => EDITABLE.includes(each.status));
      fill(list, usable.length ? h("div", { class: "lines" }, usable.map(line)) : emptyBox("edits",
        text ? "No edit is like that" : "No edit has a picture like this one",
        "Search for other words, or make this report an edit of its own."));
    } catch (error) {
      if (request === asked) fill(list, errorBox(error));
    }
  }

  function line(edit) {
    const tookPart = report.applied.includes(edit.id);
    const way = (name, field, told) => h("button", { type: "button", class: "small", "aria-label": `${name}: ${edit.prompt}`,
      onclick: (event) => change(event.currentTarget, edit, { [field]: [report.prompt] }, told) }, name);
    return editLine(edit,
      h("div", { class: "row meta" }, statusChip(edit.status), tookPart ? h("span", { class: "muted small" }, "It took part in the reported answer") : null),
      edit.prompt === report.prompt
        ? h("p", { class: "small" }, "It is this edit's own question: take the edit back, or make a new one with another answer.")
        : h("p", { class: "row" },
          way("This too", "rephrases", "The edit answers this question too"),
          way("Not this", "not_for", "The edit leaves this question alone")));
  }

  async function change(button, edit, scope, told) {
    fill(problem);
    await busy(button, async () => {
      try {
        const done = await rescope(edit.id, scope);
        await closed({ by: "scope", edit_id: edit.id }, `${told}: version ${done.version}.`);
      } catch (error) {
        const isTried = ["edit_not_effective", "edit_conflicts"].includes(error.code);
        fill(problem, errorBox(error, damages(error.details?.damaged), isTried
          ? h("p", {}, h("button", { type: "button",
              onclick: (event) => change(event.currentTarget, edit, { ...scope, verify: "report" }, told) }, "Change it all the same"))
          : null));
      }
    });
  }

  offer("");
  return h("section", { class: "card stack", "aria-labelledby": "report-scope-title" },
    h("h2", { class: "card-title", id: "report-scope-title" }, "Change what an edit is for"),
    h("p", { class: "muted" }, `"${report.prompt}" is a question that the edit must answer too, or one that it must leave alone.`),
    h("div", { class: "field" }, h("label", { for: "report-search" }, "Search all edits"), search),
    problem, list);
}

// Those that took part, and those that the picture lets through.
async function near(report) {
  const image = await pictureOf(report);
  const answer = await post("generate", { prompt: report.prompt, image, explain: true });
  const ids = new Set([...report.applied, ...answer.candidates.map((each) => each.edit_id)]);
  return Promise.all([...ids].map(editById));
}
