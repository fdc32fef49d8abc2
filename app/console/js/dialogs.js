// Dialogs: asking for a reason, and telling what was done.

import { byId, fill, h, icon } from "./dom.js";

const TOAST_MS = 6000;

// The reason as text, perhaps empty; null where it was called off.
export function askReason({ title, text, action }) {
  const dialog = byId("reason-dialog");
  const field = byId("reason-field");
  byId("reason-title").textContent = title;
  byId("reason-text").textContent = text;
  byId("reason-send").textContent = action;
  field.value = "";
  dialog.returnValue = "";
  dialog.showModal();
  field.focus();
  return new Promise((resolve) => {
    byId("reason-cancel").onclick = () => dialog.close("");
    byId("reason-form").onsubmit = (event) => {
      event.preventDefault();
      dialog.close("sent");
    };
    dialog.onclose = () => resolve(dialog.returnValue === "sent" ? field.value.trim() : null);
  });
}

export function toast(text) {
  const line = h("p", { class: "toast" }, icon("check"), text);
  byId("toasts").append(line);
  setTimeout(() => line.remove(), TOAST_MS);
}

export function clearToasts() {
  fill(byId("toasts"));
}
