// How long answers took that this page asked for. In memory, and gone with it.

const MOST = 200;
const answers = [];

export function measured(ms, tokens) {
  answers.push({ ms, tokens });
  if (answers.length > MOST) answers.shift();
}

export function figures() {
  if (!answers.length) return null;
  const sorted = answers.map((each) => each.ms).sort((a, b) => a - b);
  const at = (share) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
  const seconds = answers.reduce((sum, each) => sum + each.ms, 0) / 1000;
  const tokens = answers.reduce((sum, each) => sum + each.tokens, 0);
  return { count: answers.length, median: at(0.5), slow: at(0.95), tokensPerSecond: tokens / seconds };
}
