// Edits: a list that can be searched and filtered, and one edit in full.

import { get } from "../api.js";
import { byId, fill, h } from "../dom.js";
import { showEdit } from "../edit_detail.js";
import { ago, count } from "../format.js";
import { emptyBox, editLine, errorBox, loading, statusChip, when } from "../parts.js";
import { onUpdate } from "../state.js";

const PAGE = 20;
const PAGE_SORTED = 200; // to sort by use, all must be here: they are listed by age
const MOST_SORTED = 1000;
const ORDERS = {
  most: (a, b) => b.fired.count - a.fired.count,
  least: (a, b) => a.fired.count - b.fired.count,
  last: (a, b) => (b.fired.last_at ?? "").localeCompare(a.fired.last_at ?? ""),
};
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
  const order = byId("edits-order").value;
  const list = byId("edits-list");
  if (!list.childNodes.length) fill(list, loading());
  try {
    const page = order === "newest" ? await read({ limit: PAGE, ...(isMore && { after: last }) }) : await sorted(order);
    if (request !== asked) return;
    last = page.last_id;
    byId("edits-more").hidden = !page.has_more || order !== "newest";
    const lines = page.data.map(line);
    if (isMore) list.firstChild.append(...lines);
    else fill(list, lines.length ? h("ul", { class: "edit-list" }, lines) : nothing());
    const shown = list.querySelectorAll(".edit-list > li").length;
    byId("edits-count").textContent = shown ? counted(shown, page.has_more, order) : "";
  } catch (error) {
    if (request === asked) fill(list, errorBox(error));
  }
}

function read(more) {
  const query = new URLSearchParams({ status: byId("edits-status").value, ...more });
  if (byId("edits-search").value.trim()) query.set("q", byId("edits-search").value.trim());
  if (byId("edits-tag").value.trim()) query.set("tag", byId("edits-tag").value.trim());
  return get(`edits?${query}`);
}

async function sorted(order) {
  let page = await read({ limit: PAGE_SORTED });
  const edits = [...page.data];
  while (page.has_more && edits.length < MOST_SORTED) {
    page = await read({ limit: PAGE_SORTED, after: page.last_id });
    edits.push(...page.data);
  }
  return { ...page, data: edits.sort(ORDERS[order]) };
}

function counted(shown, hasMore, order) {
  const names = { newest: "newest first", most: "most often used first", last: "last used first", least: "least often used first" };
  if (order !== "newest" && hasMore) return `The newest ${shown} of more, ${names[order]}`;
  return `${shown}${hasMore ? " of more" : ""}, ${names[order]}`;
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
      edit.fired.count ? h("span", { class: "muted small", title: `Last ${ago(edit.fired.last_at)}` }, `Used ${count(edit.fired.count, "time")}`) : null,
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
