// Health: what the server says of itself, asked every two seconds while this view is shown.

import { get } from "../api.js";
import { byId, fill, h, svg } from "../dom.js";
import { count, figure, millis, percent, short } from "../format.js";
import { figures } from "../measured.js";
import { errorBox } from "../parts.js";
import { refreshVersions, state } from "../state.js";

const EVERY_MS = 2000;
const KEPT = 60;
const WIDTH = 480;
const HEIGHT = 120;

const history = []; // {waiting, trip} for each look
let timer = null;

export const healthView = {
  start() {},
  enter() {
    look();
    timer ??= setInterval(() => document.hidden || look(), EVERY_MS);
  },
  leave() {
    clearInterval(timer);
    timer = null;
  },
};

async function look() {
  const began = performance.now();
  try {
    const load = await get("health/load");
    history.push({ waiting: load.waiting, trip: performance.now() - began });
    if (history.length > KEPT) history.shift();
    if (!state.versions) await refreshVersions();
    fill(byId("health-error"));
    show(load);
  } catch (error) {
    fill(byId("health-error"), errorBox(error));
  }
}

function show(load) {
  const { versions } = state;
  const tile = (name, value, note, tone = "") =>
    h("div", { class: `tile ${tone}` }, h("p", { class: "muted small" }, name), h("p", { class: "big-figure" }, value), h("p", { class: "muted small" }, note));
  fill(byId("health-tiles"),
    tile("Version", versions.version, count(versions.active_edits, "active edit")),
    tile("At work", load.waiting, `of ${load.limit} requests that may wait or run`, load.waiting >= load.limit ? "bad" : ""),
    tile("A new request waits", millis(load.wait_s * 1000), "judged by the last requests"),
    tile("Stale edits", versions.stale_edits, versions.stale_edits ? "run errata reencode" : "all edits fit these weights", versions.stale_edits ? "warn" : ""),
    tile("Not finite", load.not_finite, "answers with NaN or infinity", load.not_finite ? "bad" : ""));
  fill(byId("load-chart"), chart(history.map((each) => each.waiting)));
  fill(byId("latency"), latency());
  fill(byId("running"), running(versions));
}

function chart(values) {
  const most = Math.max(4, ...values);
  const x = (at) => WIDTH - (values.length - 1 - at) * (WIDTH / (KEPT - 1));
  const y = (value) => HEIGHT - 4 - (value / most) * (HEIGHT - 12);
  const points = values.map((value, at) => `${x(at).toFixed(1)},${y(value).toFixed(1)}`);
  const label = `Requests at work: now ${values.at(-1)}, at most ${Math.max(...values)}`;
  return [
    svg("svg", { class: "chart", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": label },
      svg("path", { class: "grid", d: `M0 ${y(0)}H${WIDTH}M0 ${y(most / 2)}H${WIDTH}M0 ${y(most)}H${WIDTH}` }),
      svg("polygon", { class: "area", points: `${x(0)},${y(0)} ${points.join(" ")} ${WIDTH},${y(0)}` }),
      svg("polyline", { class: "line", points: points.join(" ") })),
    h("p", { class: "muted small" }, `Now ${values.at(-1)}, at most ${Math.max(...values)}.`),
  ];
}

function latency() {
  const trips = history.map((each) => each.trip).sort((a, b) => a - b);
  const rows = [["Round trip to the server", millis(trips[Math.floor(trips.length / 2)])]];
  const answers = figures();
  if (answers) {
    rows.push(["Answers asked for here", answers.count], ["Half of them within", millis(answers.median)],
      ["19 of 20 within", millis(answers.slow)], ["Tokens a second", figure(answers.tokensPerSecond, 1)]);
  }
  return [facts(rows), answers ? null : h("p", { class: "muted small" }, "Ask something under Try, and its time stands here.")];
}

function running({ backbone, router, question_encoder, editors }) {
  const print = (digest) => h("code", { title: digest }, short(digest));
  return h("div", { class: "halves" },
    facts([
      ["Model", h("strong", {}, backbone.name)], ["Device", `${backbone.device}, ${backbone.dtype}`],
      ["Quantization", backbone.quantization], ["Weights", print(backbone.fingerprint)],
      ...Object.entries(editors).map(([name, each]) => [`Editor ${name}`, h("span", {}, print(each.fingerprint), each.default ? " (usual)" : "")]),
    ]),
    facts([
      ["Router", print(router.fingerprint)], ["Image keys by", router.image_key_model],
      ["Pictures alike from", figure(router.tau, 3)],
      ["Words alike from", figure(question_encoder?.rho ?? router.rho)],
      ["Fires by mistake", router.false_fire_rate === null ? "not measured" : percent(router.false_fire_rate)],
      ["Question encoder", question_encoder ? h("span", {}, print(question_encoder.fingerprint), `, ${question_encoder.prefer}`) : "none"],
    ]));
}

const facts = (rows) => h("dl", { class: "facts" }, rows.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
