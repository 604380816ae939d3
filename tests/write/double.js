// An engine without a model: tokens are words, and what follows is known beforehand.

"use strict";

const asked = []; // what was asked for: {kind, text, settings, left}
const strange = "<img src=x onerror=\"console.error('hostile')\">\u202e</textarea><script>console.error(1)</" + "script>\u0000";

function makeEngine(data) {
  const following = data.following || [" one", " two", " three"];
  const note = (kind, text, settings, signal) => {
    const entry = { kind, text, settings, left: false };
    asked.push(entry);
    signal.addEventListener("abort", () => (entry.left = true));
  };
  const rest = (signal) => new Promise((resolve, reject) => {
    setTimeout(resolve, data.milliseconds || 0);
    signal.addEventListener("abort", () => reject(signal.reason));
  });
  const top = (text) => [[text, 0.5], [" dog", 0.25], [" fox", 0.125], ["", 0.0625], ["\ufffd", 0.03], [data.hostile ? strange : " cat", 0.02], [" hen", 0.01], [" pig", 0.005]];
  return {
    ready: Promise.resolve("Ready."),
    async look(text, signal) {
      note("look", text, null, signal);
      await rest(signal);
      const words = Array.from(text.matchAll(/\s*\S+|\s+$/g));
      const at = text.indexOf("copied text");
      return {
        tokens: words.map((word, i) => ({ text: word[0], start: word.index, logprob: i ? -i : null, top: top(word[0]) })),
        next: top(following[0]),
        copied: at < 0 ? [] : [{ start: at, end: at + 11, source: data.hostile ? strange : "book.txt, character 7" }],
      };
    },
    async complete(text, settings, signal, onToken) {
      note("complete", text, settings, signal);
      if (text.endsWith("fail")) throw new Error("The server answers 503.");
      for (const token of following.slice(0, settings.max_tokens)) {
        for (let index = 0; index < settings.n; index++) {
          await rest(signal);
          onToken({ index, text: settings.n > 1 ? `${token}${index}` : data.hostile ? strange : token });
        }
      }
    },
  };
}
