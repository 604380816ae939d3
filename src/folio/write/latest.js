// Requests of a kind, of which the newest alone matters.

"use strict";

// The newest request of a kind; it aborts the one before it.
class Latest {
  constructor(failed) {
    this.failed = failed;
    this.controller = null;
  }

  get running() {
    return this.controller !== null;
  }

  stop() {
    clearTimeout(this.timer);
    if (this.controller) this.controller.abort();
    this.end();
  }

  end() { // it has nothing more to do
    this.controller = null;
  }

  // Do something with a signal, in so many milliseconds; nothing else of this kind until then.
  start(job, wait = 0) {
    this.stop();
    const mine = (this.controller = new AbortController());
    const run = async () => {
      try {
        await job(mine.signal);
      } catch (error) {
        if (!mine.signal.aborted) this.failed(error);
      }
      if (this.controller === mine) this.controller = null;
    };
    if (wait) this.timer = setTimeout(run, wait);
    else run();
  }
}
