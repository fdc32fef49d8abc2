// The API key of this tab. sessionStorage: it is gone with the tab, and no other tab sees it.

const NAME = "errata.key";

export const currentKey = () => sessionStorage.getItem(NAME) ?? "";

export function keep(key) {
  if (key) sessionStorage.setItem(NAME, key);
  else sessionStorage.removeItem(NAME);
  window.dispatchEvent(new CustomEvent("errata:key"));
}
