// Numbers and times for people.

const DATE = new Intl.DateTimeFormat(undefined, { dateStyle: "medium" });
const TIME = new Intl.DateTimeFormat(undefined, { timeStyle: "short" });
const WHOLE = new Intl.DateTimeFormat(undefined, { dateStyle: "long", timeStyle: "medium" });
const AGO = new Intl.RelativeTimeFormat(undefined, { numeric: "auto" });
const STEPS = [["minute", 60], ["hour", 3600], ["day", 86400]];

export const day = (at) => DATE.format(new Date(at));
export const clock = (at) => TIME.format(new Date(at));
export const whole = (at) => WHOLE.format(new Date(at));

export function ago(at) {
  const seconds = (Date.now() - new Date(at)) / 1000;
  if (seconds < 45) return "just now";
  if (seconds > 7 * 86400) return day(at);
  const [unit, length] = STEPS.findLast(([, size]) => seconds >= size) ?? STEPS[0];
  return AGO.format(-Math.max(1, Math.round(seconds / length)), unit);
}

export const percent = (share) => `${Math.round(share * 100)} %`;
export const figure = (value, digits = 2) => (value === null ? "–" : value.toFixed(digits));
export const count = (number, one, many = `${one}s`) => `${number} ${number === 1 ? one : many}`;
export const millis = (ms) => (ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`);
export const short = (digest) => (digest ? digest.replace("sha256:", "").slice(0, 10) : "–");
export const said = (text) => (text === "" ? "(nothing)" : text);

// How often an edit took part in an answer: a lower bound, for it is counted beside answers.
export function usedText(fired) {
  if (!fired?.count) return "not yet";
  return `${count(fired.count, "time")} at least, last ${ago(fired.last_at)}`;
}
