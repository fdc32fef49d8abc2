// The start of the console: which view is shown, what the bar says, keys of the keyboard.

import { get } from "./api.js";
import { byId } from "./dom.js";
import { startKey } from "./key.js";
import { currentKey } from "./key_store.js";
import { onUpdate, refreshVersions, state } from "./state.js";
import { startTheme } from "./theme.js";
import { editsView } from "./views/edits.js";
import { explainView } from "./views/explain.js";
import { healthView } from "./views/health.js";
import { historyView } from "./views/history.js";
import { reviewView } from "./views/review.js";
import { tryView } from "./views/try.js";

const POLL_MS = 5000;
const VIEWS = {
  try: tryView, edits: editsView, history: historyView, explain: explainView, review: reviewView, health: healthView,
};
const FIELDS = { try: "question", edits: "edits-search", explain: "explain-question" };

let shown = null;
let isLockedOut = false; // until somebody enters another key


function route() {
  const [, name, ...rest] = window.location.hash.split("/");
  const view = Object.hasOwn(VIEWS, name) ? name : "try";
  const isNew = view !== shown;
  if (isNew && shown !== null) VIEWS[shown].leave?.();
  for (const other of Object.keys(VIEWS)) document.getElementById(`view-${other}`).hidden = other !== view;
  for (const tab of byId("tabs").children) {
    if (tab.dataset.view === view) tab.setAttribute("aria-current", "page");
    else tab.removeAttribute("aria-current");
  }
  document.title = `${view[0].toUpperCase()}${view.slice(1)} · Errata`;
  VIEWS[view].enter(rest.map(decodeURIComponent));
  if (isNew && shown !== null) {
    window.scrollTo(0, 0);
    document.getElementById(`${view}-title`).focus({ preventScroll: true });
  }
  shown = view;
}

// What the server says of itself, in the bar: at once, and again every few seconds.
async function watch() {
  const ready = await fetch("health/ready").then((answer) => answer.json(), () => ({ status: "gone" }));
  const { versions } = state;
  if (ready.status === "ready" && !isLockedOut && (!versions || versions.version !== ready.version)) {
    await refreshVersions().catch(() => undefined); // it says so itself, by its own event
  }
  showState(ready);
}

function showState(ready) {
  const text = { starting: "Starting", draining: "Shutting down", failed: "Failed", gone: "Not reachable" };
  byId("server-state").dataset.state = ready.status;
  byId("server-state-text").textContent =
    ready.status === "ready" ? `Version ${ready.version}` : (text[ready.status] ?? ready.status);
}

function onKey(event) {
  const isTyping = event.target.closest("input, textarea, select, dialog");
  if (isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
  const view = Object.keys(VIEWS)[Number(event.key) - 1];
  if (view) window.location.hash = `#/${view}`;
  VIEWS[shown].key?.(event);
  if (event.key === "/" && FIELDS[shown]) {
    event.preventDefault();
    document.getElementById(FIELDS[shown]).focus();
  }
}

startTheme();
startKey();
for (const view of Object.values(VIEWS)) view.start();
window.addEventListener("hashchange", route);
window.addEventListener("keydown", onKey);
window.addEventListener("errata:key-needed", () => {
  isLockedOut = true;
});
window.addEventListener("errata:key", () => {
  isLockedOut = false;
  refreshVersions().then(route, () => undefined);
});
onUpdate((_, changes) => {
  if (changes.versions) showState({ status: "ready", version: changes.versions.version });
});
route();
await watch();
setInterval(() => {
  if (!document.hidden) watch();
}, POLL_MS);
