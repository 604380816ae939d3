// The engine that is a server: POST /look, and /v1/completions as a stream.
//
// An engine has look(text, signal) -> {tokens: [{text, start, logprob, top: [[text, p]]}], next: [[text, p]],
// copied: [{start, end, source}]} and complete(text, settings, signal, onToken), which calls
// onToken({index, text}) as n texts grow. Offsets count as JavaScript's strings do.

"use strict";

const KEPT_KEY = "folio key"; // until the tab is closed
const MOST_PROMPT = 60000; // in UTF-16 units, of 3 bytes at most

function keptKey() {
  try {
    return sessionStorage.getItem(KEPT_KEY);
  } catch { // this browser keeps nothing
    return null;
  }
}

function gone() { // or the request was left, and nobody hears
  throw new Error("The server cannot be reached. Once it runs again, write on.");
}

async function ask(path, body, signal) {
  const headers = { "Content-Type": "application/json" }, key = keptKey();
  if (key) headers.Authorization = `Bearer ${key}`;
  const response = await fetch(path, { method: "POST", headers, body: JSON.stringify(body), signal }).catch(gone);
  if (response.ok) return response;
  if (response.status === 401) askForKey();
  let message = `The server answers ${response.status}.`;
  try {
    message = (await response.json()).error.message;
  } catch { /* no answer of ours */ }
  throw new Error(message);
}

// A field for the key of the server, below the line that says it is wanted.
function askForKey() {
  if (document.getElementById("key")) return;
  const label = document.createElement("label"), field = document.createElement("input");
  field.id = "key";
  field.type = "password";
  field.autocomplete = "off";
  field.addEventListener("change", () => {
    sessionStorage.setItem(KEPT_KEY, field.value.replace(/[^ -~]/g, "").trim()); // no key has what a header cannot carry
    location.reload();
  });
  label.append("API key of this server ", field);
  document.getElementById("status").after(label);
}

// The server counts characters; strings have two places for those beyond U+FFFF.
function placesOf(text) {
  const places = [];
  let at = 0;
  for (const character of text) {
    places.push(at);
    at += character.length;
  }
  places.push(at);
  return (n) => places[Math.min(n, places.length - 1)];
}

// The end of a text, all that a model reads of it; a body has a limit. No character is cut in two.
function endOf(text) {
  const end = text.slice(-MOST_PROMPT);
  return end.length < text.length && /^[\uDC00-\uDFFF]/.test(end) ? end.slice(1) : end;
}

// The data of server-sent events, which may be cut anywhere.
async function* eventsOf(stream) {
  const reader = stream.getReader(), decoder = new TextDecoder();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read().catch(gone);
    const lines = (rest + decoder.decode(value, { stream: !done })).split(/\r?\n/);
    rest = lines.pop();
    for (const line of lines) if (line.startsWith("data:")) yield line.slice(5).trim();
    if (done) return;
  }
}

function makeEngine({ model }) {
  return {
    ready: Promise.resolve(""),

    async look(text, signal) {
      const found = await (await ask("look", { model, text }, signal)).json(), place = placesOf(text);
      return {
        tokens: found.tokens.map((token) => ({ ...token, start: place(token.start) })),
        next: found.next || [],
        copied: found.copied.map((span) => ({ ...span, start: place(span.start), end: place(span.end) })),
      };
    },

    async complete(text, settings, signal, onToken) {
      const body = { model, prompt: endOf(text), stream: true };
      for (const [name, value] of Object.entries(settings)) {
        const neutral = { seed: 0, min_p: 0, top_k: 0 }[name];
        if (value !== neutral) body[name] = value; // what says nothing is not asked for
      }
      const response = await ask("v1/completions", body, signal);
      for await (const event of eventsOf(response.body)) {
        if (event === "[DONE]") return;
        const said = JSON.parse(event);
        if (said.error) throw new Error(said.error.message);
        for (const { index, text, finish_reason } of said.choices) {
          const whole = finish_reason ? text.replace(/\ufffd$/, "") : text; // the last token may begin a character
          if (whole) onToken({ index, text: whole });
        }
      }
    },
  };
}
