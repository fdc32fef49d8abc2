// Light, dark, or as the system says. Only this choice outlives the tab.

import { byId } from "./dom.js";

const NAME = "errata.theme";
const NEXT = { system: "light", light: "dark", dark: "system" };
const TOLD = { system: "as the system", light: "light", dark: "dark" };

export function startTheme() {
  show(localStorage.getItem(NAME) ?? "system");
  byId("theme-button").onclick = () => {
    const next = NEXT[document.documentElement.dataset.theme];
    localStorage.setItem(NAME, next);
    show(next);
  };
}

function show(theme) {
  document.documentElement.dataset.theme = theme;
  const label = `Colours: ${TOLD[theme]}`;
  byId("theme-button").setAttribute("aria-label", label);
  byId("theme-button").title = label;
}
