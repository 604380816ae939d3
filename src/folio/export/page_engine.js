// The engine that is the model in the page: a worker that computes, so that typing never waits.

"use strict";

function makeEngine(data) {
  const text = (id) => {
    const element = document.getElementById(id), { textContent } = element;
    element.remove(); // it is large
    return textContent;
  };
  const code = URL.createObjectURL(new Blob([text("worker")], { type: "text/javascript" }));
  const worker = new Worker(code), jobs = new Map();
  let last = 0;

  // Have the worker do something; what it sends meanwhile is heard.
  function ask(kind, asked, signal, hear) {
    const id = ++last;
    return new Promise((done, failed) => {
      jobs.set(id, { done, failed, hear });
      worker.postMessage({ id, kind, ...asked });
      if (!signal) return;
      const leave = () => {
        if (!jobs.delete(id)) return;
        worker.postMessage({ id, kind: "leave" });
        failed(signal.reason || new Error("It was left."));
      };
      if (signal.aborted) leave();
      else signal.addEventListener("abort", leave);
    });
  }

  worker.onmessage = ({ data: { id, token, done, failed } }) => {
    const job = jobs.get(id);
    if (!job) return; // it was left
    if (token) job.hear(token);
    else {
      jobs.delete(id);
      if (failed === undefined) job.done(done);
      else job.failed(new Error(failed));
    }
  };
  worker.onerror = (event) => {
    event.preventDefault();
    for (const job of jobs.values()) job.failed(new Error(`The model cannot run in this browser: ${event.message || "it forbids workers"}.`));
    jobs.clear();
  };
  const ready = ask("load", { data, weights: text("weights"), ngrams: text("ngrams"), seen: text("seen") })
    .then((fast) => fast ? "" : "This browser has no WebAssembly, so the model is slower.");
  return {
    ready,
    look: (text, signal) => ask("look", { text }, signal),
    complete: (text, settings, signal, onToken) => ask("complete", { text, settings }, signal, onToken),
  };
}
