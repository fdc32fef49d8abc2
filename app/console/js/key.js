// The key dialog. It opens by itself when the server asks for a key.

import { byId } from "./dom.js";
import { currentKey, keep } from "./key_store.js";

export function startKey() {
  const dialog = byId("key-dialog");
  const field = byId("key-field");
  const open = (why) => {
    byId("key-why").textContent = why;
    field.value = "";
    byId("key-forget").hidden = !currentKey();
    if (!dialog.open) dialog.showModal();
    field.focus();
  };
  byId("key-button").onclick = () =>
    open("A server with keys asks for one. It is kept in this tab only, until the tab is closed.");
  byId("key-cancel").onclick = () => dialog.close();
  byId("key-forget").onclick = () => {
    keep("");
    dialog.close();
  };
  byId("key-form").onsubmit = (event) => {
    event.preventDefault();
    if (!field.value.trim()) return;
    keep(field.value.trim());
    dialog.close();
  };
  let wasAsked = false; // once is enough: whoever closed the dialog has the button in the bar
  window.addEventListener("errata:key-needed", () => {
    if (wasAsked) return;
    wasAsked = true;
    open(currentKey()
      ? "The server does not know this key, or it was revoked. Enter another one."
      : "This server asks for a key. `errata keys create` makes one. It is kept in this tab only.");
  });
  window.addEventListener("errata:key", () => {
    wasAsked = false;
    showKey();
  });
  showKey();
}

function showKey() {
  const button = byId("key-button");
  button.setAttribute("aria-label", currentKey() ? "API key: set" : "API key: none");
  button.classList.toggle("set", Boolean(currentKey()));
}
