// Edits by id, remembered for as long as nothing changes: many places name the same ones.

import { get, post } from "./api.js";
import { refreshVersions, onUpdate, state } from "./state.js";

const known = new Map();
let version = null;

onUpdate(() => {
  if (state.versions && state.versions.version !== version) {
    version = state.versions.version;
    known.clear();
  }
});

export function edit(id) {
  if (!known.has(id)) {
    known.set(id, get(`edits/${id}`));
    known.get(id).catch(() => known.delete(id));
  }
  return known.get(id);
}

// The same as it is now: how often an edit was used changes without a version.
export function freshEdit(id) {
  known.delete(id);
  return edit(id);
}

// Those that a search finds, newest first.
export const find = async (query) => (await get(`edits?${new URLSearchParams(query)}`)).data;

// Whatever changes an edit goes through here, so that what is shown elsewhere follows.
async function changing(work) {
  const answer = await work();
  known.clear();
  await refreshVersions();
  return answer;
}

export const rollBack = (id, reason) =>
  changing(() => post(`admin/edits/${id}/rollback`, reasoned(reason)));

export const reinstate = (id, reason) =>
  changing(() => post(`admin/edits/${id}/reinstate`, reasoned(reason)));

export const restore = (to, reason, head) =>
  changing(() =>
    post("admin/rollback", { to_version: to, ...reasoned(reason) }, { headers: { "If-Match": `"${head}"` } }),
  );

export const rescope = (id, change) => changing(() => post(`edits/${id}/scope`, change));

export const cancel = (id) => changing(() => post(`edits/${id}/cancel`));

// The edit once it is committed, or has failed. `onProgress` gets it as it stands until then.
export async function create(order, onProgress) {
  let made = await post("edits", order);
  while (made.status === "pending") {
    onProgress(made);
    await new Promise((resolve) => setTimeout(resolve, 700));
    made = await get(`edits/${made.id}`);
  }
  return changing(async () => made);
}

const reasoned = (reason) => (reason ? { reason } : {});
