// One report in full: what was asked and said, what is said today, and the ways to close it.

import { post } from "./api.js";
import { askReason, toast } from "./dialogs.js";
import { busy, fill, h, icon } from "./dom.js";
import { close, one, pictureOf } from "./feedback_api.js";
import { said, whole } from "./format.js";
import { errorBox, loading, reportChip, reportTexts } from "./parts.js";
import { reportPicture } from "./pictures.js";
import { reportEditForm } from "./report_edit.js";
import { reportScopePanel } from "./report_scope.js";

// `onClosed` is called when the report is no longer open.
export async function showReport(place, id, { onClosed }) {
  if (place.dataset.report === id) return;
  place.dataset.report = id;
  fill(place, loading());
  try {
    const report = await one(id);
    if (place.dataset.report === id) draw(place, report, onClosed);
  } catch (error) {
    if (place.dataset.report !== id) return;
    delete place.dataset.report; // to be tried again
    fill(place, back(), errorBox(error));
  }
}

// What a key stands for: whether there was something to do.
export function act(place, action) {
  const button = place.querySelector(`[data-action="${action}"]`);
  if (!button || button.disabled) return false;
  button.click();
  return true;
}

const back = () => h("p", { class: "only-narrow" }, h("a", { class: "button small", href: "#/review" }, icon("back"), "All reports"));

function draw(place, report, onClosed) {
  const work = h("div", { class: "stack" });
  const today = h("div", {});
  const problem = h("div", { "aria-live": "polite" });
  const closed = async (closing, told, ...after) => {
    const now = await close(report.id, closing);
    toast(told);
    draw(place, now, onClosed);
    place.append(...after);
    place.querySelector("#report-detail-title").focus();
    onClosed();
  };
  const isOpen = report.status === "open";
  const buttons = isOpen ? actions(report, { work, problem, closed, today }) : null;
  fill(place, back(), h("article", { class: "card stack", "aria-labelledby": "report-detail-title" },
    h("div", { class: "row spread" },
      h("h2", { id: "report-detail-title", class: "edit-title", tabindex: "-1" }, report.prompt), reportChip(report)),
    h("div", { class: "edit-about" }, reportPicture(report, "image"),
      h("div", { class: "stack" }, reportTexts(report), today, facts(report))),
    problem, buttons), work);
  if (isOpen) nowAnswered(report, today);
}

function facts(report) {
  const rows = [
    ["Reported", h("span", {}, whole(report.created_at), " by ", h("strong", {}, report.created_by))],
    ["From", report.source],
    ["Comment", report.comment],
    ["Answered by", report.version === null ? "" : `version ${report.version}`],
    ["Edits in it", report.applied.length ? report.applied.map((id, at) => h("a", { href: `#/edits/${id}` }, at ? `, edit ${at + 1}` : "edit 1")) : ""],
    ["Closed", report.closed_at ? h("span", {}, whole(report.closed_at), " by ", h("strong", {}, report.closed_actor)) : ""],
    ["By", report.edit_id ? h("a", { href: `#/edits/${report.edit_id}` }, report.closed_by === "scope" ? "another scope of this edit" : "this edit") : ""],
    ["Reason", report.reason],
  ];
  return h("dl", { class: "facts" }, rows.filter(([, value]) => value !== null && value !== "" && value !== undefined)
    .map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]).flat());
}

// It may be mended already: by an edit for another report, or by another wording.
async function nowAnswered(report, place) {
  fill(place, loading("Asking again"));
  try {
    const image = await pictureOf(report);
    const answer = await post("generate", { prompt: report.prompt, ...(image && { image }) });
    const verdict = report.correction === null ? "" : answer.text === report.correction ? ", as the reporter wants it" : "";
    fill(place, h("p", { class: "today" }, h("span", { class: "muted small" }, `Today, in version ${answer.version}${verdict}`), h("br"), said(answer.text)));
  } catch (error) {
    fill(place, errorBox(error));
  }
}

function actions(report, { work, problem, closed }) {
  const show = (panel) => {
    fill(problem);
    fill(work, panel);
    panel.querySelector("input, button")?.focus();
  };
  const button = (action, name, className, onclick) => h("button", { type: "button", class: className, "data-action": action, onclick }, name);
  const hasPicture = report.image_digest !== null;
  return h("p", { class: "row" },
    hasPicture ? button("edit", "Make it an edit", "primary", () => show(reportEditForm(report, closed))) : null,
    hasPicture ? button("scope", "Change an edit's scope", "", () => show(reportScopePanel(report, closed))) : null,
    button("dismiss", "Dismiss", "", (event) => busy(event.currentTarget, () => dismiss(report, problem, closed))),
    hasPicture ? null : h("span", { class: "muted small" }, "Questions without a picture are never edited."));
}

async function dismiss(report, problem, closed) {
  const reason = await askReason({
    title: "Dismiss this report?",
    text: "Nothing changes. It stays listed as dismissed, without its picture.",
    action: "Dismiss",
  });
  if (reason === null) return;
  try {
    await closed({ by: "dismissal", ...(reason && { reason }) }, "Dismissed.");
  } catch (error) {
    fill(problem, errorBox(error));
  }
}
