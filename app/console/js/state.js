// What views share: the question in hand, and what the server runs. Whoever listens is told.

import { get } from "./api.js";

const listeners = new Set();

export const state = {
  picture: null, // {uri, name}
  question: "",
  versions: null,
};

export function update(changes) {
  Object.assign(state, changes);
  for (const listener of listeners) listener(state, changes);
}

export function onUpdate(listener) {
  listeners.add(listener);
}

// After each change of an edit: the version in the bar, and lists that are shown, follow.
export async function refreshVersions() {
  update({ versions: await get("versions") });
}
