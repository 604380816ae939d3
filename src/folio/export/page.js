// What the page does: write, stop, go on, and show at each place what else could have come.

"use strict";

{
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("data").textContent);
  const weights = loadWeights(data.tensors, fromBase64($("weights").textContent), fromBase64(data.kernel));
  const model = new Model({ ...data.config, ...data.derived }, weights);
  const tokenizer = makeTokenizer(data.tokenizer);
  const copies = data.copies && { ...data.copies, bits: fromBase64($("seen").textContent) };
  const hidden = new Set(tokenizer.special.values());
  const SHOWN = 10; // alternatives

  let ids = []; // all tokens, those of the prompt first
  let first = 0; // the first one that was written
  let writer = null, writing = null, options = null, random = null;
  let spans = []; // by place, those that show something


  // ---- writing ----------------------------------------------------------------------------------

  function settings() {
    const number = (id) => Number($(id).value);
    const seed = number("seed") || 1 + Math.floor(Math.random() * 4294967295);
    return { temperature: number("temperature"), top_k: number("top_k"), top_p: number("top_p"), seed,
             max_tokens: number("max_tokens"), ends: $("ends").checked };
  }

  function say(text) {
    $("status").textContent = text;
  }

  async function write(budget) {
    const mine = (writing = {}), began = performance.now();
    $("stop").disabled = false;
    $("more").disabled = true;
    $("look").hidden = true;
    let made = 0, ended = false, last = began;
    say("Writing ...");
    while (made < budget && mine === writing && !ended) {
      const token = draw(writer.logits(), options, random);
      made++;
      ended = options.ends && token === data.end;
      writer.push(token);
      ids.push(token);
      if (performance.now() - last > 30) { // let the browser paint, and hear the reader
        show();
        await new Promise((resolve) => setTimeout(resolve));
        last = performance.now();
      }
    }
    if (mine !== writing) return;
    writing = null;
    show();
    $("stop").disabled = true;
    $("more").disabled = ended;
    const seconds = (performance.now() - began) / 1000;
    const rate = Math.round(made / Math.max(seconds, 0.001)).toLocaleString("en");
    say(`${made} tokens, ${rate} a second, seed ${options.seed}.${copied()}${ended ? " The model ended its document." : ""}`);
  }

  function begin() {
    const text = $("prompt").value;
    try {
      ids = encodePrompt(tokenizer, text, data.begin, data.start);
    } catch (error) {
      say(error.message);
      return;
    }
    first = ids.length;
    options = settings();
    random = randomFrom(options.seed);
    $("text").replaceChildren();
    const prompt = document.createElement("span");
    prompt.className = "prompt";
    prompt.textContent = text;
    $("text").append(prompt);
    spans = [];
    shown = { place: first, decoder: new TextDecoder(), separated: text !== "" };
    writer = new Writer(model, ids, data.never);
    write(options.max_tokens);
  }

  function stop() {
    writing = null;
    show();
    $("stop").disabled = true;
    $("more").disabled = false;
    say(`Stopped after ${ids.length - first} tokens.${copied()}`);
  }

  // ---- the text ---------------------------------------------------------------------------------

  let shown = null; // up to which place the page shows the tokens

  function show() {
    for (; shown.place < ids.length; shown.place++) {
      const token = ids[shown.place];
      if (hidden.has(token)) continue;
      const between = shown.separated ? tokenizer.separator : "";
      shown.separated = true;
      const text = between + shown.decoder.decode(tokenizer.pieces[token], { stream: true });
      if (!text) continue; // a part of a character
      const span = document.createElement("span");
      span.textContent = text;
      span.dataset.place = shown.place;
      span.setAttribute("role", "button");
      span.setAttribute("aria-pressed", "false");
      span.tabIndex = spans.length ? -1 : 0;
      $("text").append(span);
      spans.push(span);
    }
  }

  function copied() {
    if (!copies || !spans.length) return "";
    const marks = copiedCharacters(spans.map((s) => s.textContent).join(""), copies);
    let at = 0, total = 0;
    for (const span of spans) {
      const n = Array.from(span.textContent).length, inside = marks.subarray(at, at + n);
      span.classList.toggle("copied", inside.includes(1));
      total += inside.reduce((a, b) => a + b, 0);
      at += n;
    }
    return ` ${Math.round((100 * total) / at)} % of it stands in the training text in runs of ${copies.run} characters or more${total ? " (underlined)" : ""}.`;
  }

  // ---- alternatives -----------------------------------------------------------------------------

  function name(token) {
    if (token === data.end) return "(end)";
    const text = new TextDecoder().decode(tokenizer.pieces[token]);
    return text.replace(/ /g, "\u2423").replace(/\n/g, "\u21b5").replace(/\t/g, "\u21e5") || "(nothing)";
  }

  // A writer whose next token is that of a place, with the window that it had when it wrote.
  function writerAt(place) {
    const again = new Writer(model, ids.slice(0, first), data.never);
    for (let i = first; i < place; i++) again.push(ids[i]);
    return again;
  }

  function look(span) {
    if (writing) return;
    const place = Number(span.dataset.place);
    const p = softmax(writerAt(place).logits());
    const best = byProbability(p).slice(0, SHOWN);
    if (!best.includes(ids[place])) best.push(ids[place]);
    for (const other of spans) other.setAttribute("aria-pressed", other === span);
    $("place").textContent = `What else could stand in place of \u201c${name(ids[place])}\u201d`;
    $("choices").replaceChildren(...best.map((token) => {
      const button = document.createElement("button");
      const [text, bar, share] = ["code", "i", "span"].map((tag) => document.createElement(tag));
      text.textContent = name(token);
      bar.style.width = `${100 * p[token] / p[best[0]]}%`;
      share.textContent = `${(100 * p[token]).toFixed(1)} %`;
      button.type = "button";
      button.setAttribute("aria-current", token === ids[place]);
      button.setAttribute("aria-label", `${name(token)}, ${share.textContent}; write on from it`);
      button.append(text, bar, share);
      button.onclick = () => rewrite(place, token);
      return button;
    }));
    $("look").hidden = false;
    model.clear();
    writer = null; // its cache is gone
  }

  function rewrite(place, token) {
    ids = ids.slice(0, place);
    writer = writerAt(place);
    writer.push(token);
    ids.push(token);
    redraw();
    $("text").focus();
    if (token === data.end && options.ends) say("The model ends its document there.");
    else write(options.max_tokens);
  }

  function redraw() { // a character may begin in one token and end in the next: from the start
    for (const span of spans) span.remove();
    spans = [];
    shown = { place: first, decoder: new TextDecoder(), separated: $("text").textContent !== "" };
    $("look").hidden = true;
    show();
  }

  // ---- the reader -------------------------------------------------------------------------------

  $("form").onsubmit = (event) => {
    event.preventDefault();
    begin();
  };
  $("stop").onclick = stop;
  $("more").onclick = () => {
    if (!writer) writer = writerAt(ids.length);
    write(options.max_tokens);
  };
  $("text").onclick = (event) => {
    const span = event.target.closest("[role=button]");
    if (span) look(span);
  };
  $("text").onkeydown = (event) => {
    const at = spans.indexOf(event.target), step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (at < 0) return;
    if (step && spans[at + step]) {
      spans[at].tabIndex = -1;
      spans[at + step].tabIndex = 0;
      spans[at + step].focus();
      event.preventDefault();
    } else if (event.key === "Enter" || event.key === " ") {
      look(spans[at]);
      event.preventDefault();
      $("choices").firstChild.focus();
    }
  };
  say(weights.fast ? "Ready." : "Ready; without WebAssembly, which makes it slower.");
}
