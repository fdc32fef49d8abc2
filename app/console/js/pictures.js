// Pictures of edits. An <img> sends no key, so they are fetched, and shown from memory.

import { blob } from "./api.js";
import { h } from "./dom.js";

const MOST = 300;
const kept = new Map();

function urlOf(path) {
  if (!kept.has(path)) {
    kept.set(path, blob(path).then(URL.createObjectURL));
    kept.get(path).catch(() => kept.delete(path)); // to be tried again
    if (kept.size > MOST) forgetOldest();
  }
  return kept.get(path);
}

function forgetOldest() {
  const [path, url] = kept.entries().next().value;
  kept.delete(path);
  url.then(URL.revokeObjectURL, () => undefined);
}

export function thumbnail(edit, more = "") {
  return picture(edit, "thumbnail", `thumb ${more}`);
}

export function wholePicture(edit) {
  return picture(edit, "image", "whole-picture");
}

function picture(edit, kind, className) {
  const image = h("img", { class: className, alt: `Picture of the edit "${edit.prompt}"` });
  if (edit.version === null) {
    return h("span", { class: `${className} none`, role: "img", "aria-label": "No picture yet" });
  }
  const loaded = urlOf(`edits/${edit.id}/${kind}`);
  loaded.then(
    (url) => image.setAttribute("src", url),
    () => image.replaceWith(h("span", { class: `${className} none`, role: "img", "aria-label": "The picture cannot be shown" })),
  );
  return image;
}
