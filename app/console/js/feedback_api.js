// Reports of answers: sent, listed, closed.

import { blob, get, post } from "./api.js";
import { asDataUri } from "./picture_input.js";

export const report = (body) => post("feedback", body);
export const one = (id) => get(`feedback/${encodeURIComponent(id)}`);
export const page = (query) => get(`feedback?${new URLSearchParams(query)}`);
export const close = (id, closing) => post(`feedback/${id}/resolve`, closing);

// As a request holds it; null where there is none.
export async function pictureOf(report) {
  return report.image_digest ? asDataUri(await blob(`feedback/${report.id}/image`)) : null;
}
