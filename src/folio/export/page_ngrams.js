// The n-grams of the training text, beside which the model is read: page_ngrams.py says how they lie in the page.
//
// The probability of a token after others is a discounted count, mixed with that after one token fewer.

"use strict";

class NGrams {
  constructor({ vocab_size, sizes, discounts, weights, token_bytes, large }, bytes) {
    const n = sizes.reduce((a, b) => a + b, 0), Token = { 1: Uint8Array, 2: Uint16Array, 4: Uint32Array }[token_bytes];
    let at = 0;
    const take = (Type, many) => {
      const end = at + many * Type.BYTES_PER_ELEMENT, part = new Type(bytes.slice(at, end).buffer);
      at = end;
      return part;
    };
    const whole = (many) => {
      const numbers = Uint32Array.from(take(Uint8Array, n)), behind = take(Uint32Array, many);
      for (let i = 0, next = 0; next < many; i++) if (numbers[i] === 255) numbers[i] = behind[next++];
      return numbers;
    };
    this.tokens = take(Token, n);
    this.counts = whole(large[0]);
    const children = whole(large[1]);
    this.first = new Uint32Array(n + 1); // child of each; those of the next one begin where its own end
    for (let i = 0, next = sizes[0]; i <= n; next += children[i++]) this.first[i] = next;
    Object.assign(this, { discounts, weights, roots: sizes[0], p: new Float64Array(vocab_size) });
  }

  // Where the children of an n-gram begin and end; those of -1, the empty one, are the tokens alone.
  range(ngram) {
    return ngram < 0 ? [0, this.roots] : [this.first[ngram], this.first[ngram + 1]];
  }

  // The last tokens ids[from ... to - 1] as an n-gram, or nothing.
  find(ids, from, to) {
    let ngram = -1;
    for (let i = from; i < to; i++) {
      let [low, end] = this.range(ngram), high = end;
      while (low < high) {
        const middle = (low + high) >> 1;
        if (this.tokens[middle] < ids[i]) low = middle + 1;
        else high = middle;
      }
      if (low === end || this.tokens[low] !== ids[i]) return null;
      ngram = low;
    }
    return ngram;
  }

  // Multiply what the model expects after ids[start ... n - 1] with what stood there in the text: logits to logits.
  readBeside(logits, ids, start, n) {
    const { p, tokens, counts, discounts, weights } = this;
    p.fill(1 / p.length);
    for (let known = 0; known < discounts.length && known <= n - start; known++) {
      const ngram = this.find(ids, n - known, n);
      if (ngram === null) break; // where the text has not these tokens, it has no more of them either
      const [begin, end] = this.range(ngram), taken = (i) => discounts[known][Math.min(counts[i], 3) - 1];
      let total = 0, rest = 0;
      for (let i = begin; i < end; i++) {
        total += counts[i];
        rest += taken(i);
      }
      if (begin === end) continue;
      for (let id = 0; id < p.length; id++) p[id] *= rest / total;
      for (let i = begin; i < end; i++) p[tokens[i]] += (counts[i] - taken(i)) / total;
    }
    for (let id = 0; id < logits.length; id++) logits[id] = weights.model * logits[id] + weights.ngrams * Math.log(p[id]);
  }
}
