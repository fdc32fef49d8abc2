// Requests to the server that this page came from. Every failure is an ApiError with a hint.

import { currentKey } from "./key_store.js";

export class ApiError extends Error {
  constructor(error, status) {
    super(error.message);
    this.name = "ApiError";
    this.status = status;
    this.code = error.code;
    this.hint = error.hint;
    this.details = error;
  }
}

export const get = (path, options) => asJson(path, options);
export const post = (path, body = {}, options) => asJson(path, { ...options, body });

async function asJson(path, options) {
  const response = await send(path, options);
  return response.json();
}

export async function blob(path) {
  return (await send(path)).blob();
}

// One object for each event of a streamed answer: {delta}, then all other fields.
export async function* events(path, body, { signal } = {}) {
  const response = await send(path, { body: { ...body, stream: true }, signal });
  for await (const line of lines(response)) {
    if (!line.startsWith("data: ")) continue;
    const data = line.slice("data: ".length);
    if (data === "[DONE]") return;
    const event = JSON.parse(data);
    if (event.error) throw new ApiError(event.error, response.status);
    yield event;
  }
}

async function* lines(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const parts = (rest + value).split("\n");
      rest = parts.pop();
      yield* parts;
    }
  } finally {
    reader.cancel().catch(() => undefined); // called off, or broken already: that was told above
  }
}

async function send(path, { body, signal, headers = {} } = {}) {
  const key = currentKey();
  const init = { signal, headers: { Accept: "application/json", ...headers } };
  if (key) init.headers.Authorization = `Bearer ${key}`;
  if (body !== undefined) {
    init.method = "POST";
    init.body = JSON.stringify(body);
    init.headers["Content-Type"] = "application/json";
  }
  const response = await fetch(path, init).catch((error) => {
    throw error.name === "AbortError" ? error : unreachable();
  });
  if (response.ok) return response;
  const told = await response.json().then((answer) => answer.error, () => undefined);
  if (response.status === 401) window.dispatchEvent(new CustomEvent("errata:key-needed"));
  throw new ApiError(told ?? notOurs(response), response.status);
}

const unreachable = () =>
  new ApiError({
    code: "unreachable",
    message: "The server does not answer.",
    hint: "Is it still running? This page goes on as soon as it is.",
  });

const notOurs = (response) => ({
  code: "unknown",
  message: `The server answered ${response.status}.`,
  hint: "Something between this page and the server may have answered instead.",
});
