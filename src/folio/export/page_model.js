// A GPT of any of Folio's shapes, one token at a time.
//
// Shapes:  C = d_model · F = d_ff · H heads · K heads of keys and values · D head width · V vocabulary

"use strict";

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
