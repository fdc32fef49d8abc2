// Edits: a list that can be searched and filtered, and one edit in full.

import { get } from "../api.js";
import { byId, fill, h } from "../dom.js";
import { showEdit } from "../edit_detail.js";
import { emptyBox, editLine, errorBox, loading, statusChip, when } from "../parts.js";
import { onUpdate } from "../state.js";

const PAGE = 20;
const PAUSE_MS = 250;

let asked = 0; // which request is the newest: answers of older ones are not shown
let last = null;
let chosen = null;

export const editsView = {
  start() {
    let pause = 0;
    const filters = byId("edits-filters");
    filters.oninput = () => {
      clearTimeout(pause);
      pause = setTimeout(() => load(), PAUSE_MS);
    };
    filters.onsubmit = (event) => event.preventDefault();
    byId("edits-more").onclick = () => load({ isMore: true });
    onUpdate((_, changes) => {
      if (!changes.versions || byId("view-edits").hidden) return;
      load();
      if (chosen !== null) showEdit(byId("edit-detail"), chosen);
    });
  },

  enter([id]) {
    chosen = id ?? null;
    byId("edits-master").classList.toggle("open", chosen !== null);
    byId("edit-detail").hidden = chosen === null;
    if (chosen !== null) showEdit(byId("edit-detail"), chosen);
    load();
  },
};

async function load({ isMore = false } = {}) {
  const request = ++asked;
  const query = new URLSearchParams({ limit: PAGE, status: byId("edits-status").value });
  if (byId("edits-search").value.trim()) query.set("q", byId("edits-search").value.trim());
  if (byId("edits-tag").value.trim()) query.set("tag", byId("edits-tag").value.trim());
  if (isMore) query.set("after", last);
  const list = byId("edits-list");
  if (!list.childNodes.length) fill(list, loading());
  try {
    const page = await get(`edits?${query}`);
    if (request !== asked) return;
    last = page.last_id;
    byId("edits-more").hidden = !page.has_more;
    const lines = page.data.map(line);
    if (isMore) list.firstChild.append(...lines);
    else fill(list, lines.length ? h("ul", { class: "edit-list" }, lines) : nothing());
    const shown = list.querySelectorAll(".edit-list > li").length;
    byId("edits-count").textContent = shown ? `${shown}${page.has_more ? " of more" : ""}, newest first` : "";
  } catch (error) {
    if (request === asked) fill(list, errorBox(error));
  }
}

function line(edit) {
  const tag = (name) => h("button", { type: "button", class: "chip-button small", "aria-label": `Only with the tag ${name}`,
    onclick: () => {
      byId("edits-tag").value = name;
      load();
    } }, name);
  const item = h("li", {}, editLine(edit,
    h("div", { class: "row meta" }, statusChip(edit.status),
      h("span", { class: "muted small" }, edit.version === null ? "No version · " : `Version ${edit.version} · `, edit.created_by, " · ", when(edit.created_at)),
      edit.tags.map(tag))));
  if (edit.id === chosen) {
    item.classList.add("chosen");
    item.querySelector("a").setAttribute("aria-current", "true");
  }
  return item;
}

function nothing() {
  const isFiltered = byId("edits-search").value || byId("edits-tag").value || byId("edits-status").value !== "all";
  if (!isFiltered) {
    return emptyBox("edits", "Nothing was corrected yet", "Ask a question, and correct the answer.",
      h("p", {}, h("a", { class: "button primary", href: "#/try" }, "Try it")));
  }
  return emptyBox("edits", "No edit is like that", "Search for other words, or show all of them.",
    h("p", {}, h("button", { type: "button", onclick: () => {
      byId("edits-filters").reset();
      load();
    } }, "Show all")));
}
