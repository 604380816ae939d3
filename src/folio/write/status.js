// The line that says what happens.

"use strict";

class Status {
  constructor(line) {
    this.line = line;
  }

  // What failed, as long as its error is told.
  get failed() {
    return this.line.dataset.failed;
  }

  say(text, failed = "") {
    if (this.line.textContent !== text) this.line.textContent = text;
    this.line.dataset.failed = failed;
  }

  fail(error, what) {
    this.say(error.message || String(error), what);
  }

  wentWell(what) {
    if (this.failed === what) this.say("");
  }
}
