// Folio's tokenizers, and which characters of a text are copied.

"use strict";

// ---- tokenizers ---------------------------------------------------------------------------------

// What a tokenizer.json of Folio says. `split` is its pattern, with every class of characters spelled
// out. encode(text) -> ids; pieces[id] -> bytes; `separator` stands between two tokens.
function makeTokenizer({ kind, table, split }) {
  const bytesOf = (text) => new TextEncoder().encode(text), vocabulary = new Map(Object.entries(table.model.vocab));
  const added = new Map(table.added_tokens.map((token) => [token.content, token]));
  const special = new Map([...added].filter(([, t]) => t.special).map(([name, t]) => [name, t.id]));
  const pieces = [];
  for (const [name, id] of vocabulary) pieces[id] = bytesOf(name);
  for (const [name, token] of added) pieces[token.id] = bytesOf(name);
  const unknown = special.get("<unk>"), common = { pieces, special, unknown, separator: "", normal: (text) => text };
  if (kind === "character") {
    const known = (c) => vocabulary.has(c) && !special.has(c) ? vocabulary.get(c) : unknown;
    return { ...common, encode: (text) => Array.from(text, known), parts: (text) => Array.from(text) };
  }
  const pattern = new RegExp(split, "gu");
  if (kind === "word") {
    const normal = (text) => table.normalizer ? Array.from(text, (c) => c.toLowerCase()).join("") : text;
    const parts = (text) => normal(text).match(pattern) || [];
    const known = (word) => special.has(word) || !vocabulary.has(word) ? unknown : vocabulary.get(word);
    return { ...common, separator: " ", normal, parts, encode: (text) => parts(text).map(known) };
  }
  return { ...common, ...makeBytePairs(table, vocabulary, added, pieces, pattern) };
}

// Byte-level pair merging: bytes are written as printable characters, as GPT-2 began it.
function makeBytePairs(table, vocabulary, added, pieces, pattern) {
  const written = [], valueOf = new Map();
  for (let value = 0, next = 256; value < 256; value++) {
    const prints = (value >= 33 && value <= 126) || (value >= 161 && value <= 172) || value >= 174;
    written.push(String.fromCharCode(prints ? value : next++));
    valueOf.set(written[value], value);
  }
  for (const [name, id] of vocabulary)
    if (!added.has(name)) pieces[id] = Uint8Array.from(name, (c) => valueOf.get(c));
  for (let id = 0; id < pieces.length; id++) pieces[id] = pieces[id] || new Uint8Array(0);
  const rules = new Map(); // "left right" -> rank and new id
  table.model.merges.forEach(([left, right], rank) =>
    rules.set(`${vocabulary.get(left)} ${vocabulary.get(right)}`, [rank, vocabulary.get(left + right)]));

  function encodeChunk(chunk) {
    const name = Array.from(new TextEncoder().encode(chunk), (value) => written[value]).join("");
    if (table.model.ignore_merges && vocabulary.has(name)) return [vocabulary.get(name)];
    const ids = Array.from(name).filter((c) => vocabulary.has(c)).map((c) => vocabulary.get(c));
    for (;;) {
      let best = null, place = 0;
      for (let i = 0; i + 1 < ids.length; i++) {
        const rule = rules.get(`${ids[i]} ${ids[i + 1]}`);
        if (rule && (!best || rule[0] < best[0])) [best, place] = [rule, i];
      }
      if (!best) return ids;
      ids.splice(place, 2, best[1]);
    }
  }

  const known = new Map();
  const encodeText = (text) => (text.match(pattern) || []).flatMap((chunk) => {
    if (!known.has(chunk)) known.set(chunk, encodeChunk(chunk));
    return known.get(chunk);
  });
  const inText = [...added.values()].filter((t) => !t.special).map((t) => t.content).sort((a, b) => b.length - a.length);
  const escaped = inText.map((name) => name.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  const names = inText.length ? new RegExp(`(${escaped.join("|")})`, "u") : null;
  const normal = (text) => table.normalizer ? text.normalize(table.normalizer.type) : text;
  return {
    normal,
    lacks: (text) => Array.from(new TextEncoder().encode(text)).some((value) => !vocabulary.has(written[value])),
    encode(text) {
      if (!names) return encodeText(normal(text));
      return normal(text).split(names).flatMap((part, i) => (i % 2 ? [added.get(part).id] : encodeText(part)));
    },
  };
}

// Token ids of a prompt, or an error that says what of it the model cannot read.
function encodePrompt(tokenizer, text, begin, start) {
  if (!text) return [start];
  const ids = tokenizer.encode(text);
  if (tokenizer.unknown !== undefined && ids.includes(tokenizer.unknown)) {
    const strange = [...new Set(tokenizer.parts(text))].filter((part) => tokenizer.encode(part)[0] === tokenizer.unknown);
    throw new Error(`The vocabulary lacks ${strange.slice(0, 5).map((s) => JSON.stringify(s)).join(", ")}, so the model cannot read it. Leave it out of the prompt.`);
  }
  if (tokenizer.lacks && tokenizer.lacks(text)) throw new Error("The prompt has bytes that the vocabulary lacks. Leave them out.");
  const prompt = begin === null ? ids : [begin, ...ids];
  if (!prompt.length) throw new Error("Nothing of the prompt is a token. Write a word.");
  return prompt;
}

// Where each token of a text ends in it. `decode` gives their texts in turn.
function endsOf(tokenizer, text, ids, decode) {
  const normal = tokenizer.normal(text), words = tokenizer.separator ? tokenizer.parts(text) : null;
  let at = 0;
  const ends = ids.map((id, i) => (at = words ? normal.indexOf(words[i], at) + words[i].length : at + decode(id).length));
  if (normal === text) return ends;
  const origin = [0]; // by place in the normal text: how much of the text it has taken, character by character
  let taken = 0;
  for (const [cluster] of text.matchAll(/\P{M}\p{M}*|\p{M}+/gu)) {
    taken += cluster.length;
    for (let i = tokenizer.normal(cluster).length; i; i--) origin.push(taken);
  }
  return ends.map((end) => origin[Math.min(end, origin.length - 1)]);
}

// ---- copies -------------------------------------------------------------------------------------

// Which characters of a text stand in runs of at least `run` characters that the training text has, as
// far as a filter of hashes of all its windows of `window` characters tells.
function copiedCharacters(text, { window, run, bits }) {
  const codes = Array.from(text, (c) => c.codePointAt(0)), marks = new Uint8Array(codes.length);
  let first = 0; // of the windows in a row that are there
  for (let i = 0; i + window <= codes.length + 1; i++) {
    let hash = 0;
    for (let j = i; j < i + window; j++) hash = (Math.imul(hash, 0x01000193) + codes[j]) >>> 0;
    hash = Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d) >>> 0;
    hash = ((hash ^ (hash >>> 12)) >>> 0) % (bits.length * 8);
    const there = i + window <= codes.length && (bits[hash >> 3] >> (hash & 7)) & 1;
    if (there) continue;
    const end = i - 1 + window; // of the run before this window
    if (i > first && end - first >= run) marks.fill(1, first, end);
    first = i + 1;
  }
  return marks;
}
