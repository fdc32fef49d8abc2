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

// Of a report: its own while it is open, afterwards that of the edit which mended it, if one did.
export function reportPicture(report, kind = "thumbnail") {
  const className = kind === "thumbnail" ? "thumb" : "whole-picture";
  const alt = `Picture of the report "${report.prompt}"`;
  if (report.image_digest && report.status === "open") return shown(`feedback/${report.id}/${kind}`, className, alt);
  if (report.image_digest && report.edit_id && report.closed_by === "edit") {
    return shown(`edits/${report.edit_id}/${kind}`, className, alt);
  }
  const why = report.image_digest ? "The picture of a closed report is not kept" : "Asked without a picture";
  return h("span", { class: `${className} none`, role: "img", "aria-label": why, title: why });
}

function picture(edit, kind, className) {
  if (edit.version === null) {
    return h("span", { class: `${className} none`, role: "img", "aria-label": "No picture yet" });
  }
  return shown(`edits/${edit.id}/${kind}`, className, `Picture of the edit "${edit.prompt}"`);
}

function shown(path, className, alt) {
  const image = h("img", { class: className, alt });
  const loaded = urlOf(path);
  loaded.then(
    (url) => image.setAttribute("src", url),
    () => image.replaceWith(h("span", { class: `${className} none`, role: "img", "aria-label": "The picture cannot be shown" })),
  );
  return image;
}
