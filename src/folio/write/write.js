// The page: what happens when somebody writes, and what the model says to it.

"use strict";

{
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("data").textContent);
  const engine = makeEngine(data);
  const WAIT = 150; // ms behind a key
  const GHOST = { tokens: 48, characters: 72 }; // at most
  const TYPING = 1000; // ms between keys that are one step of undo, within a sentence
  const STRETCH = 1000, REACH = 3; // characters of what is looked at: so many before the caret, and behind

  const paper = new Paper($("text"), $("behind")), store = new Store(data.run);
  const settings = new Settings($, settingChanged);
  const status = new Status($("status")), say = (text) => status.say(text);
  const [looking, suggesting, writing] = ["look", "suggest", "write"].map((kind) =>
    new Latest((error) => status.fail(error, kind)));
  let tree = new Tree(), before = null; // the tree that a file took the place of
  let looked = { tokens: [], copied: [], next: [], from: 0, length: 0 };
  let known = ""; // the text that all of this is of
  let ghost = "", away = false; // put away until the text changes
  let frame = 0, streamed = false; // whether the tree has more than the field
  let typedAt = 0, saving = 0, treeTimer = 0, heardTimer = 0;

  // ---- what is shown --------------------------------------------------------------------------

  // Until the model has looked at what was typed, there is nothing to choose behind it.
  const stale = () => looked.length < 0 && place() === looked.tokens.length;
  const composing = () => paper.field.value !== known; // letters that are no text yet
  const visibleGhost = () =>
    (paper.atEnd && settings.on("ghosts") && !away && !writing.running && !composing() ? ghost : "");

  // The token at the caret; as many as there are stands for the one that would come next.
  function place() {
    const at = paper.field.selectionStart, { tokens } = looked;
    const found = tokens.findIndex((token) => at < token.end);
    return found < 0 ? tokens.length : at < tokens[found].start ? -1 : found;
  }

  function paint() { // once a frame
    frame = frame || requestAnimationFrame(draw);
  }

  function draw() {
    frame = 0;
    if (streamed) {
      streamed = false;
      paper.write((known = tree.text()));
      paper.reveal();
    }
    const here = place(), token = looked.tokens[here], active = document.activeElement;
    const marked = active === paper.field || active === $("choices") ? here : -1;
    paper.paint(visibleGhost(), { ...looked, place: marked, colors: settings.on("colors") });
    const atNext = here === looked.tokens.length && looked.length === known.length;
    $("choices").setAttribute("aria-busy", stale());
    $("here-title").textContent = token ? nameOf(token.text) : "Next";
    $("here-about").textContent = !token ? "what could come"
      : token.logprob === null ? "stands here; nothing comes before it"
      : `stands here: ${percent(Math.exp(token.logprob))}, ${(-token.logprob).toFixed(1)} nats`;
    if (!stale()) choices.show(token ? token.top : atNext ? looked.next : [], token && token.text);
    $("take").disabled = !visibleGhost();
    $("undo").disabled = !tree.at && !before;
    $("redo").disabled = tree.at + 1 === tree.past.length;
    $("legend").hidden = !settings.on("colors");
  }

  // ---- what the model says --------------------------------------------------------------------

  // Where the part of a long text that is looked at begins, the same while somebody types.
  function beginning(text, at) {
    const from = Math.max(0, Math.floor(at / STRETCH) - REACH) * STRETCH;
    const word = /\s\S*$/.exec(text.slice(Math.max(0, from - 100), from)) || [""];
    return beforePair(text, from - word[0].length);
  }

  function look() {
    looking.start(async (signal) => {
      const text = paper.field.value, from = beginning(text, paper.field.selectionStart);
      const to = beforePair(text, Math.min(text.length, from + (2 * REACH + 1) * STRETCH));
      const found = await engine.look(text.slice(from, to), signal);
      if (signal.aborted) return;
      const { tokens } = found;
      looked = {
        tokens: tokens.map((token, i) => ({ ...token, start: from + token.start,
          end: from + (i + 1 < tokens.length ? tokens[i + 1].start : to - from) })).filter((t) => t.end > t.start),
        copied: found.copied.map((span) => ({ ...span, start: from + span.start, end: from + span.end })),
        next: found.next,
        from,
        length: to,
      };
      status.wentWell("look");
      copied.show(text, looked.copied);
      paint();
    }, WAIT);
  }

  function suggest() {
    suggesting.stop();
    ghost = "";
    clearTimeout(heardTimer);
    if (!settings.on("ghosts") || !paper.atEnd || writing.running) return;
    suggesting.start(async (signal) => {
      let raw = "";
      const text = paper.field.value, asked = { ...settings.sampling, n: 1, max_tokens: GHOST.tokens };
      await engine.complete(text, asked, signal, (token) => {
        if (signal.aborted) return;
        raw += token.text;
        ghost = clean(raw);
        if (ghost.length >= GHOST.characters || /\S[^]*\n/.test(ghost)) suggesting.stop();
        heardSoon();
        paint();
        status.wentWell("suggest");
      });
    }, WAIT);
  }

  function heardSoon() { // by those who listen, once it stands still
    clearTimeout(heardTimer);
    heardTimer = setTimeout(() => {
      const text = visibleGhost();
      $("heard").textContent = text.trim() ? `Suggested: ${text}` : "";
    }, 600);
  }

  // ---- what happens to the text -----------------------------------------------------------------

  // The text of the tree is another one: have the page follow.
  function follow({ quiet } = {}) {
    streamed = false;
    paper.write(tree.text());
    changed();
    if (!quiet) paper.reveal();
  }

  function changed() {
    const text = paper.field.value, n = commonStart(text, known);
    if (text !== known) side.begin([]);
    known = text;
    away = false;
    if (!["look", "suggest"].includes(status.failed)) say("");
    looked = {
      tokens: looked.tokens.filter((token) => token.end <= n),
      copied: looked.copied.filter((span) => span.end <= n),
      next: [],
      from: looked.from,
      length: -1,
    };
    look();
    suggest();
    keepSoon();
    paint();
  }

  function typed(event) {
    stop();
    streamed = false; // what comes into the field now would end a composition
    if (event.isComposing) return paint();
    const text = paper.field.value, added = text.slice(known.length), now = Date.now();
    const goesOn = ghost && added && text.startsWith(known) && ghost.startsWith(added) && ghost !== added;
    const rest = goesOn ? ghost.slice(added.length) : "";
    tree.edit(text, now - typedAt < TYPING && !/\n$|[.!?\u2026]\s+$/.test(known));
    typedAt = now;
    changed();
    if (rest) { // somebody types what the ghost says: it stays
      suggesting.stop();
      ghost = rest;
      paint();
    }
  }

  function take(piece) {
    if (!piece) return;
    const rest = ghost.slice(piece.length);
    suggesting.stop();
    tree.branch(known.length, piece, "model");
    follow();
    if (rest) {
      suggesting.stop();
      ghost = rest;
      paint();
    }
    $("heard").textContent = "";
  }

  function choose(text) {
    const token = looked.tokens[place()];
    if (stale()) return;
    stop();
    tree.branch(token ? token.start : known.length, clean(text), "model");
    follow();
    paper.field.focus();
    say(token ? "What stood there is a branch of its own; Undo goes back." : "");
  }

  // Another tree, from a file or an empty one; Undo brings the old one back.
  function replace(other) {
    stop();
    before = tree.root.children.length ? tree : null;
    tree = other;
    side.begin([]);
    follow({ quiet: true });
  }

  function undo() {
    stop();
    if (!tree.undo() && before) {
      tree = before;
      before = null;
      side.begin([]);
    }
    follow();
  }

  function redo() {
    stop();
    if (tree.redo()) follow();
  }

  function walk(step) {
    stop();
    if (tree.walk(step)) follow();
    else say("There is one branch only.");
  }

  // ---- writing ----------------------------------------------------------------------------------

  function stop() {
    const was = writing.running;
    writing.stop();
    if (was) wrote();
    return was;
  }

  function halt() {
    if (!stop()) return false;
    follow();
    say("Stopped.");
    return true;
  }

  function putAway() {
    away = true;
    suggesting.stop();
    paint();
    return true;
  }

  function wrote() { // it came to its end, or was stopped
    $("write").textContent = "Write on";
    if (!tree.current.text && tree.current.parent) tree.drop();
    const empty = side.nodes.filter((node) => !node.text);
    empty.forEach((node) => tree.remove(node));
    if (empty.length) side.begin(side.nodes.filter((node) => node.text));
    keepSoon();
  }

  // Write n continuations from the caret: one goes into the text, several stand side by side.
  function write(n) {
    stop();
    const from = paper.field.selectionEnd, top = tree.cut(from);
    if (from < known.length || n > 1) tree.go(top);
    const nodes = Array.from({ length: n }, () => tree.add(top, "", "model"));
    if (n === 1) tree.go(nodes[0]);
    const text = tree.text(top), raw = nodes.map(() => ""), began = performance.now();
    const asked = { ...settings.sampling, n, max_tokens: settings.number("max_tokens") };
    let made = 0;
    const hear = (signal) => ({ index, text: piece }) => {
      if (signal.aborted) return;
      made++;
      raw[index] += piece;
      nodes[index].text = clean(raw[index]);
      if (n > 1) side.grow(index);
      else streamed = true;
      paint();
    };
    writing.start(async (signal) => {
      try {
        await engine.complete(text, asked, signal, hear(signal));
      } finally {
        if (!signal.aborted) {
          writing.end();
          wrote();
          follow({ quiet: n > 1 });
        }
      }
      const rate = Math.round((1000 * made) / Math.max(1, performance.now() - began)).toLocaleString("en");
      const which = side.nodes.length > 1 ? ` Alt+1 to Alt+${side.nodes.length} takes one.` : "";
      if (!signal.aborted) say(made ? `${made} tokens, ${rate} a second.${which}` : "The model ends its document here.");
    });
    $("write").textContent = "Stop";
    follow({ quiet: true });
    if (n > 1) side.begin(nodes);
    say("Writing ...");
  }

  function takeSide(node) {
    stop();
    if (!node || !node.text) return;
    tree.go(node);
    follow();
    paper.field.focus();
    say("The others are branches beside it.");
  }

  // ---- keeping ----------------------------------------------------------------------------------

  function keep() {
    clearTimeout(saving);
    saving = 0;
    const kept = store.save(tree, settings.values);
    $("kept").textContent = kept ? "It stays in this browser." : "This browser does not keep it: save it as a file.";
  }

  function keepSoon() {
    clearTimeout(saving);
    saving = setTimeout(keep, 400);
    clearTimeout(treeTimer);
    treeTimer = setTimeout(() => branches.show(tree), 100);
  }

  async function open(file) {
    try {
      const opened = await readFile(file);
      settings.values = opened.settings;
      replace(opened.tree);
      say(opened.run === data.run ? `${file.name} is open.` : `${file.name} is open; it was written with ${opened.run}.`);
    } catch (error) {
      status.fail(error, "file");
    }
  }

  // ---- the writer -------------------------------------------------------------------------------

  function settingChanged(name) {
    keepSoon();
    if (!["max_tokens", "n", "colors"].includes(name)) suggest();
    paint();
  }

  const toChoices = () => ($("choices").focus(), paint(), true);
  const word = () => visibleGhost() && (take((/^\s*\S+/.exec(ghost) || [ghost])[0]), true);
  const KEYS = { // in the text
    Tab: () => visibleGhost() && (take(ghost), true),
    "Ctrl+ArrowRight": word,
    "Alt+ArrowRight": word,
    Escape: () => visibleGhost() && putAway(),
    "Ctrl+ ": toChoices,
    "Alt+ArrowDown": toChoices,
  };
  const always = (act) => () => (act(), true);
  const KEYS_ANYWHERE = {
    "Ctrl+Enter": always(() => write(1)),
    "Ctrl+Shift+Enter": always(() => write(settings.number("n"))),
    "Ctrl+z": always(undo),
    "Ctrl+Shift+z": always(redo),
    "Ctrl+y": always(redo),
    "Alt+PageUp": always(() => walk(-1)),
    "Alt+PageDown": always(() => walk(1)),
    Escape: halt,
    F1: always(() => $("keys").showModal()),
  };

  const choices = new Choices($("choices"), {
    choose,
    move(step) {
      const to = looked.tokens[place() + step], { length } = paper.field.value;
      const at = to ? to.start : step > 0 ? length : 0;
      paper.field.setSelectionRange(at, at);
      paint();
    },
    leave: () => paper.field.focus(),
  });
  const branches = new Branches($("tree"), (nodes) => {
    stop();
    tree.go(tree.end(nodes[nodes.length - 1]));
    follow();
  });
  const side = new SideBySide($("side"), takeSide);
  const copied = new Copied($("copied"), (start, end) => {
    paper.field.focus();
    paper.field.setSelectionRange(start, end);
  });

  paper.field.oninput = typed;
  paper.field.addEventListener("compositionend", typed);
  paper.field.onbeforeinput = (event) => { // undo and redo of the browser's own menu
    const own = { historyUndo: undo, historyRedo: redo }[event.inputType];
    if (!own) return;
    event.preventDefault();
    own();
  };
  paper.field.addEventListener("keydown", (event) => pressed(KEYS, event));
  for (const kind of ["focus", "blur"]) paper.field.addEventListener(kind, () => paint());
  document.addEventListener("selectionchange", () => {
    if (document.activeElement !== paper.field) return;
    if (beginning(known, paper.field.selectionStart) !== looked.from && !looking.running) look();
    if (paper.atEnd && !ghost && !away && !suggesting.running) suggest();
    paint();
  });
  document.onkeydown = (event) => {
    if (event.defaultPrevented || $("keys").open) return;
    if (pressed(KEYS_ANYWHERE, event)) return;
    const typing = /^(TEXTAREA|INPUT)$/.test(event.target.tagName);
    if (event.key === "?" && !typing) $("keys").showModal();
    const node = side.nodes[digitWithAlt(event) - 1];
    if (!node) return;
    takeSide(node);
    event.preventDefault();
  };
  const clicks = {
    write: () => halt() || write(1),
    several: () => write(settings.number("n")),
    take: () => (take(visibleGhost()), paper.field.focus()),
    undo, redo,
    help: () => $("keys").showModal(),
    close: () => $("keys").close(),
    as_txt: () => saveFile(`${data.run}.txt`, known, "text/plain"),
    as_json: () => saveFile(`${data.run}.json`, packed(data.run, tree, settings.values), "application/json"),
    open: () => $("file").click(),
    anew: () => (stop(), tree.go(tree.root), follow(), paper.field.focus(), say("The old text is a branch.")),
  };
  for (const [id, click] of Object.entries(clicks)) $(id).addEventListener("click", click);
  $("file").onchange = () => {
    if ($("file").files[0]) open($("file").files[0]);
    $("file").value = "";
  };
  for (const kind of ["pagehide", "visibilitychange"]) addEventListener(kind, () => (saving || writing.running) && keep());
  addEventListener("storage", (event) => {
    if (event.key === store.key && event.newValue !== store.kept) say("Another tab writes on this text, too; what is kept is what was written last.");
  });
  if (window.visualViewport) visualViewport.addEventListener("resize", () => {
    const hidden = innerHeight - visualViewport.height - visualViewport.offsetTop;
    document.documentElement.style.setProperty("--keyboard", `${Math.max(0, hidden)}px`);
  });

  // ---- the beginning ----------------------------------------------------------------------------

  const kept = store.load();
  if (kept) {
    tree = kept.tree;
    settings.values = kept.settings;
  }
  engine.ready.then((text) => say(store.unread || text), (error) => status.fail(error, "page"));
  paper.field.focus();
  follow({ quiet: true });
  branches.show(tree);
}
