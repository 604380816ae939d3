// From logits to a token, as `folio sample` draws it.

"use strict";

function softmax(logits) {
  const largest = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  const weights = Float64Array.from(logits, (x) => Math.exp(x - largest));
  const total = weights.reduce((a, b) => a + b, 0);
  return weights.map((w) => w / total);
}

function likeliest(logits) {
  let best = 0;
  for (let i = 1; i < logits.length; i++) if (logits[i] > logits[best]) best = i;
  return best;
}

function byProbability(p) { // ids, the likeliest first
  return Array.from(p.keys()).filter((i) => p[i] > 0).sort((a, b) => p[b] - p[a] || a - b);
}

// As `folio sample` draws: temperature, then top-k (ties with the k-th stay), then top-p. Then min-p, a
// share of the likeliest one's probability.
function draw(logits, { temperature, top_k, top_p, min_p = 0 }, random) {
  if (temperature === 0) return likeliest(logits);
  const p = softmax(logits.map((x) => x / temperature));
  if (top_k > 0 || top_p < 1) {
    const order = byProbability(p), least = top_k > 0 && top_k < order.length ? p[order[top_k - 1]] : 0;
    const all = order.reduce((sum, i) => sum + (p[i] >= least ? p[i] : 0), 0);
    let before = 0; // of those likelier
    for (const i of order) {
      const stays = p[i] >= least && (top_p >= 1 || before / all < top_p);
      before += p[i];
      if (!stays) p[i] = 0;
    }
  }
  const fewest = min_p * p.reduce((a, b) => Math.max(a, b), 0);
  for (let i = 0; i < p.length; i++) if (p[i] < fewest) p[i] = 0;
  let rest = random() * p.reduce((a, b) => a + b, 0), last = 0;
  for (let i = 0; i < p.length; i++) {
    if (p[i] > 0) {
      last = i;
      rest -= p[i];
      if (rest < 0) break;
    }
  }
  return last;
}

// mulberry32: numbers from 0 to below 1, the same for the same seed.
function randomFrom(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}
