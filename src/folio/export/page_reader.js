// Reading texts that have much in common with the one before, however long: which tokens are to be read.

"use strict";

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
  constructor(model, never, ngrams = null) {
    this.model = model;
    this.ngrams = ngrams; // or nothing
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
    if (last && this.ngrams) this.ngrams.readBeside(logits, ids, start, n);
    if (last) for (const token of this.never) logits[token] = -Infinity;
    return logits;
  }
}
