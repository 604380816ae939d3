// A GPT of any of Folio's shapes, one token at a time, and how it is drawn from. No library.
//
// Shapes:  C = d_model · F = d_ff · H heads · K heads of keys and values · D head width · V vocabulary

"use strict";

// ---- weights ------------------------------------------------------------------------------------

function fromBase64(text) {
  const binary = atob(text), bytes = new Uint8Array(binary.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

// Where WebAssembly is missing: the same product, row by row.
function multiplyInScript(memory, w, s, x, y, rows, columns) {
  const weights = new Int8Array(memory, w, rows * columns), scales = new Float32Array(memory, s, rows);
  const input = new Float32Array(memory, x, columns), output = new Float32Array(memory, y, rows);
  for (let i = 0, k = 0; i < rows; i++) {
    let sum = 0;
    for (let j = 0; j < columns; j++) sum += weights[k++] * input[j];
    output[i] = sum * scales[i];
  }
}

// Put all weights in one memory, which the kernel sees. Matrices are rows of bytes, padded with zeros
// to a multiple of eight, and one scale a row; all else is float32.
function loadWeights(table, bytes, kernel) {
  const widest = Math.max(...table.map((t) => Math.max(...t.shape))) + 8;
  const size = bytes.length + 8 * widest;
  let memory, run = null;
  try {
    const made = new WebAssembly.Instance(new WebAssembly.Module(kernel)).exports;
    made.m.grow(Math.ceil(size / 65536));
    memory = made.m.buffer;
    run = made.q;
  } catch {
    memory = new ArrayBuffer(size + 8);
  }
  new Uint8Array(memory).set(bytes);
  const x = Math.ceil(bytes.length / 8) * 8, y = x + 4 * widest;
  const input = new Float32Array(memory, x, widest), tensors = {};
  for (const { name, shape, at, scales } of table) {
    if (shape.length === 1) {
      tensors[name] = new Float32Array(memory, at, shape[0]);
      continue;
    }
    const [rows, columns] = shape, padded = Math.ceil(columns / 8) * 8;
    const weights = new Int8Array(memory, at, rows * padded);
    const scale = new Float32Array(memory, scales, rows);
    tensors[name] = {
      times(vector, bias) { // (columns) -> (rows)
        input.set(vector);
        input.fill(0, columns, padded);
        if (run) run(at, scales, x, y, rows, padded);
        else multiplyInScript(memory, at, scales, x, y, rows, padded);
        const result = new Float32Array(memory, y, rows).slice();
        if (bias) for (let i = 0; i < rows; i++) result[i] += bias[i];
        return result;
      },
      row(i) {
        return Float32Array.from(weights.subarray(i * padded, i * padded + columns), (w) => w * scale[i]);
      },
    };
  }
  return { tensors, fast: run !== null };
}

// ---- the model ----------------------------------------------------------------------------------

// Abramowitz and Stegun 7.1.26, off by 1.5e-7 at most.
function erf(x) {
  const t = 1 / (1 + 0.3275911 * Math.abs(x));
  const polynomial = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t;
  const value = 1 - polynomial * Math.exp(-x * x);
  return x < 0 ? -value : value;
}

const ACTIVATIONS = {
  relu: (x) => Math.max(0, x),
  relu2: (x) => Math.max(0, x) ** 2,
  gelu: (x) => 0.5 * x * (1 + erf(x * Math.SQRT1_2)),
  gelu_tanh: (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x * x * x))),
};

function normalize(x, gain, bias, config) { // in place; without a gain there is no norm
  if (!gain) return x;
  const n = x.length;
  let mean = 0, square = 0;
  if (config.normalization === "layernorm") {
    for (let i = 0; i < n; i++) mean += x[i];
    mean /= n;
  }
  for (let i = 0; i < n; i++) square += (x[i] - mean) ** 2;
  const factor = 1 / Math.sqrt(square / n + config.normalization_epsilon);
  for (let i = 0; i < n; i++) x[i] = (x[i] - mean) * factor * gain[i] + (bias ? bias[i] : 0);
  return x;
}

function angle(position, pair, width, base) {
  return Math.fround(position * base ** (-2 * pair / width));
}

function addPosition(x, position, tensors, config) {
  if (config.positions === "learned") {
    const learned = tensors["positions.weight"].row(position);
    for (let i = 0; i < x.length; i++) x[i] += learned[i];
  } else if (config.positions === "sinusoidal") {
    for (let i = 0; i < x.length; i += 2) {
      const turned = angle(position, i / 2, x.length, 10000);
      x[i] += Math.sin(turned);
      x[i + 1] += Math.cos(turned);
    }
  }
}

function rotate(head, cosines, sines) { // pairs i and i + D/2, in place
  const half = head.length / 2;
  for (let i = 0; i < half; i++) {
    const a = head[i], b = head[i + half];
    head[i] = a * cosines[i] - b * sines[i];
    head[i + half] = b * cosines[i] + a * sines[i];
  }
}

class Model {
  constructor(config, weights) {
    this.config = config;
    this.tensors = weights.tensors;
    const width = config.key_value_heads * config.head_width * config.context_length;
    const room = () => Array.from({ length: config.n_layers }, () => new Float32Array(width));
    this.keys = room();
    this.values = room();
    this.length = 0; // positions read
  }

  // Forget the first n positions. Where positions are turns, the keys of the others turn back by n; where
  // they are added vectors the others are of no use, and it says so.
  forget(n) {
    const { key_value_heads, head_width, rope_base, positions } = this.config;
    if (positions !== "rope" && positions !== "none") return false;
    const width = key_value_heads * head_width, end = this.length * width;
    const pairs = positions === "rope" ? head_width / 2 : 0;
    const angles = Array.from({ length: pairs }, (_, i) => angle(n, i, head_width, rope_base));
    const cosines = angles.map(Math.cos), sines = angles.map((x) => -Math.sin(x));
    for (const all of [...this.keys, ...this.values]) all.copyWithin(0, n * width, end);
    this.length -= n;
    for (const keys of pairs ? this.keys : [])
      for (let at = 0; at < this.length * width; at += head_width)
        rotate(keys.subarray(at, at + head_width), cosines, sines);
    return true;
  }

  // Read a token at the next place; the logits of the one after it, or nothing if they are not wanted.
  read(token, wanted = true) {
    const { config, tensors } = this;
    let x = tensors["token_embedding.weight"].row(token);
    if (config.scale_embeddings) for (let i = 0; i < x.length; i++) x[i] *= Math.sqrt(config.d_model);
    addPosition(x, this.length, tensors, config);
    for (let layer = 0; layer < config.n_layers; layer++) {
      const part = (name) => tensors[`blocks.${layer}.${name}`];
      const sublayer = (name, compute) => { // x + exit_norm(compute(norm(x))), where those norms are
        const norm = (y, place) => normalize(y, part(`${name}_${place}.weight`), part(`${name}_${place}.bias`), config);
        const change = norm(compute(norm(x.slice(), "norm")), "exit_norm");
        for (let i = 0; i < x.length; i++) x[i] += change[i];
        norm(x, "sum_norm");
      };
      sublayer("attention", (y) => this.attend(y, layer, part));
      sublayer("feed_forward", (y) => this.think(y, part));
    }
    this.length++;
    if (!wanted) return null;
    normalize(x, tensors["final_norm.weight"], tensors["final_norm.bias"], config);
    return (tensors["lm_head.weight"] || tensors["token_embedding.weight"]).times(x);
  }

  attend(x, layer, part) { // (C) -> (C)
    const { n_heads, key_value_heads, head_width, rope_base, positions } = this.config;
    const projected = part("attention.qkv_proj.weight").times(x, part("attention.qkv_proj.bias"));
    const head = (i) => projected.subarray(i * head_width, (i + 1) * head_width);
    const pairs = positions === "rope" ? head_width / 2 : 0;
    const angles = Array.from({ length: pairs }, (_, i) => angle(this.length, i, head_width, rope_base));
    const cosines = angles.map(Math.cos), sines = angles.map(Math.sin);
    for (let i = 0; i < n_heads + key_value_heads; i++) {
      const name = i < n_heads ? "attention.q_norm" : "attention.k_norm";
      normalize(head(i), part(`${name}.weight`), part(`${name}.bias`), this.config);
      if (pairs) rotate(head(i), cosines, sines);
    }
    const width = key_value_heads * head_width, keys = this.keys[layer], values = this.values[layer];
    const first = n_heads * head_width;
    keys.set(projected.subarray(first, first + width), this.length * width);
    values.set(projected.subarray(first + width), this.length * width);
    const mixed = new Float32Array(first), scores = new Float32Array(this.length + 1);
    for (let h = 0; h < n_heads; h++) {
      const shared = Math.floor(h / (n_heads / key_value_heads)) * head_width, q = head(h);
      let largest = -Infinity, total = 0;
      for (let t = 0; t <= this.length; t++) {
        let sum = 0;
        const at = t * width + shared;
        for (let i = 0; i < head_width; i++) sum += q[i] * keys[at + i];
        scores[t] = sum / Math.sqrt(head_width);
        if (scores[t] > largest) largest = scores[t];
      }
      for (let t = 0; t <= this.length; t++) total += scores[t] = Math.exp(scores[t] - largest);
      for (let t = 0; t <= this.length; t++) {
        const weight = scores[t] / total, at = t * width + shared, to = h * head_width;
        for (let i = 0; i < head_width; i++) mixed[to + i] += weight * values[at + i];
      }
    }
    return part("attention.out_proj.weight").times(mixed, part("attention.out_proj.bias"));
  }

  think(x, part) { // (C) -> (F) -> (C)
    const linear = (name, y) => part(`feed_forward.${name}.weight`).times(y, part(`feed_forward.${name}.bias`));
    const wide = linear("up_proj", x);
    if (this.config.activation === "swiglu") {
      const gate = linear("gate_proj", x);
      for (let i = 0; i < wide.length; i++) wide[i] *= gate[i] / (1 + Math.exp(-gate[i]));
    } else {
      const activation = ACTIVATIONS[this.config.activation];
      for (let i = 0; i < wide.length; i++) wide[i] = activation(wide[i]);
    }
    return linear("down_proj", wide);
  }
}

// ---- writing ------------------------------------------------------------------------------------

// How many tokens a model forgets when its context is full: half of it stays, with the next one.
function forgottenAtOnce(context) {
  return context + 1 - Math.max(1, Math.floor(context / 2));
}

// Where the window begins in which a model reads n tokens. It depends on n alone, so that what was read
// is of use again.
function windowStart(n, context) {
  const forgotten = forgottenAtOnce(context);
  return n <= context ? 0 : forgotten * Math.ceil((n - context) / forgotten);
}

// Reads texts; of the next one, only what it has not in common with the one before.
class Reader {
  constructor(model, never) {
    this.model = model;
    this.never = never; // tokens
    this.start = 0; // of the window
    this.held = []; // tokens in the model's cache
  }

  // How many tokens in the cache are those of a text.
  common(ids, n) {
    let same = 0;
    while (same < this.held.length && this.start + same < n && this.held[same] === ids[this.start + same]) same++;
    return same;
  }

  // Read one of the first n tokens that was not read. The logits behind them, if it was the last one.
  step(ids, n) {
    const { context_length } = this.model.config, start = windowStart(n, context_length), { held } = this;
    let same = this.common(ids, n);
    if (start !== this.start) {
      const goesOn = same === context_length && start - this.start === forgottenAtOnce(context_length);
      if (goesOn && this.model.forget(start - this.start)) held.splice(0, start - this.start);
      else held.length = 0;
      same = held.length;
      this.start = start;
    }
    same = Math.min(same, n - start - 1); // the last one gives logits
    held.length = this.model.length = same;
    held.push(ids[start + same]);
    const last = same + 1 === n - start, logits = this.model.read(ids[start + same], last);
    if (last) for (const token of this.never) logits[token] = -Infinity;
    return logits;
  }
}

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
