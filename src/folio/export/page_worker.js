// What the worker of a page does, behind the other files that page.py lists in WORKER: it looks at texts and goes on
// with them, in slices, between which it hears what is no longer wanted.

"use strict";

const SLICE = 20; // ms
const ALTERNATIVES = 8;

let engine = null;
const alive = new Set(); // jobs
let rested = 0; // when

// The most probable tokens: [[id, p]].
function likeliestOf(p, n) {
  const best = [];
  for (let id = 0; id < p.length; id++) {
    if (!p[id] || (best.length === n && p[id] <= p[best[n - 1]])) continue;
    let at = best.length;
    while (at && p[best[at - 1]] < p[id]) at--;
    best.splice(at, 0, id);
    best.length = Math.min(n, best.length);
  }
  return best.map((id) => [id, p[id]]);
}

class Engine {
  constructor(data, weights, ngrams, seen) {
    const loaded = loadWeights(data.tensors, fromBase64(weights), fromBase64(data.kernel));
    const counted = data.ngrams && new NGrams(data.ngrams, fromBase64(ngrams));
    const reader = () => new Reader(new Model({ ...data.config, ...data.derived }, loaded), data.never, counted);
    this.data = data;
    this.fast = loaded.fast;
    this.looking = reader(); // one does not forget what the other has read
    this.writing = reader();
    this.tokenizer = makeTokenizer(data.tokenizer);
    this.hidden = new Set(this.tokenizer.special.values());
    this.copies = data.copies && { ...data.copies, bits: fromBase64(seen) };
    this.seen = { ids: [], places: [] }; // what was found in the text before, by place
  }

  // The logits behind the first n of some ids; nothing once the job was left.
  async read(reader, ids, n, job) {
    for (;;) {
      const logits = reader.step(ids, n);
      if (performance.now() - rested > SLICE) {
        await new Promise((resolve) => setTimeout(resolve));
        rested = performance.now();
      }
      if (!alive.has(job)) return null;
      if (logits) return logits;
    }
  }

  decoder() {
    const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
    return (id) => this.hidden.has(id) ? "" : decoder.decode(this.tokenizer.pieces[id], { stream: true });
  }

  // A token alone, as it would stand there; one that is a part of a character is named by its bytes, as a server does.
  name(id, first) {
    if (this.hidden.has(id)) return "";
    const piece = this.tokenizer.pieces[id], between = first ? "" : this.tokenizer.separator;
    try {
      return between + new TextDecoder("utf-8", { ignoreBOM: true, fatal: true }).decode(piece);
    } catch {
      return `${between}bytes:${Array.from(piece, (value) => `\\x${value.toString(16).padStart(2, "0")}`).join("")}`;
    }
  }

  async look(text, job) {
    const { begin, start } = this.data, ids = encodePrompt(this.tokenizer, text, begin, start);
    const first = text ? Number(begin !== null) : ids.length, { seen } = this;
    let same = 0; // what stands there as it did
    while (same < ids.length && ids[same] === seen.ids[same]) same++;
    seen.places.length = Math.min(seen.places.length, same);
    seen.places[0] = { top: [], logprob: null }; // nothing comes before it
    seen.ids = ids;
    for (let i = 1; i <= ids.length; i++) {
      if (seen.places[i]) continue;
      const logits = await this.read(this.looking, ids, i, job);
      if (!logits || seen.ids !== ids) return null;
      const p = softmax(logits), top = likeliestOf(p, ALTERNATIVES).map(([id, share]) => [this.name(id, i === first), share]);
      seen.places[i] = { top, logprob: i < ids.length ? Math.log(p[ids[i]]) : 0 };
    }
    const next = seen.places[ids.length].top;
    return { tokens: this.tokens(text, ids.slice(first), seen.places.slice(first)), next, copied: this.copied(text) };
  }

  // Tokens that are a part of a character are one with those that end it.
  tokens(text, ids, places) {
    const ends = endsOf(this.tokenizer, text, ids, this.decoder()), tokens = [];
    let start = 0, logprob = 0, top = null;
    ids.forEach((id, i) => {
      const known = logprob !== null && places[i].logprob !== null;
      logprob = known ? logprob + places[i].logprob : null;
      top = top || places[i].top;
      if (ends[i] <= start) return;
      tokens.push({ text: text.slice(start, ends[i]), start, logprob: logprob && Math.max(logprob, -1000), top });
      [start, logprob, top] = [ends[i], 0, null];
    });
    return tokens;
  }

  copied(text) {
    if (!this.copies) return [];
    const marks = copiedCharacters(text, this.copies), spans = [];
    let i = 0, at = 0, open = false;
    for (const character of text) {
      if (marks[i] && !open) spans.push({ start: at, end: at, source: this.copies.source });
      open = marks[i++] === 1;
      at += character.length;
      if (open) spans[spans.length - 1].end = at;
    }
    return spans;
  }

  async complete(text, settings, job, hear) {
    const { data, tokenizer } = this, prompt = encodePrompt(tokenizer, text, data.begin, data.start);
    for (let index = 0; index < settings.n; index++) {
      const random = randomFrom(settings.seed ? settings.seed + index : Math.floor(Math.random() * 2 ** 32));
      const ids = prompt.slice(), decode = this.decoder();
      let between = text !== "";
      for (let made = 0; made < settings.max_tokens; made++) {
        const logits = await this.read(this.writing, ids, ids.length, job);
        if (!logits) return null;
        const id = draw(logits, settings, random);
        if (data.ends.includes(id)) break;
        ids.push(id);
        if (this.hidden.has(id)) continue;
        const piece = (between ? tokenizer.separator : "") + decode(id);
        between = true;
        if (piece) hear({ index, text: piece });
      }
    }
    return null;
  }
}

async function work({ id, kind, text, settings, data, weights, ngrams, seen }) {
  if (kind === "leave") return alive.delete(id);
  alive.add(id);
  try {
    let done = null;
    if (kind === "load") {
      engine = new Engine(data, weights, ngrams, seen);
      done = engine.fast;
    } else if (kind === "look") done = await engine.look(text, id);
    else done = await engine.complete(text, settings, id, (token) => postMessage({ id, token }));
    postMessage({ id, done });
  } catch (error) {
    postMessage({ id, failed: error.message });
  }
  return alive.delete(id);
}

if (typeof WorkerGlobalScope !== "undefined") onmessage = (event) => work(event.data);
