// What was written, and what could have been: a tree of pieces of text. A path from its root is a
// text. Nothing in it is ever lost; undo goes back along the nodes that the writer came by.

"use strict";

// What a textarea makes of line ends, so that its offsets are ours.
const clean = (text) => text.replace(/\r\n?/g, "\n");

// A place in a text, or the one before it where a pair would be cut in two.
const beforePair = (text, at) => (at && /[\ud800-\udbff]/.test(text[at - 1]) ? at - 1 : at);

// The beginning of a text, as much as is shown.
const shortened = (text, most) => (text.length > most ? `${text.slice(0, beforePair(text, most))} \u2026` : text);

// How many characters two texts have in common at their beginnings, no half of a pair.
function commonStart(a, b) {
  let n = 0;
  while (n < a.length && n < b.length && a[n] === b[n]) n++;
  return beforePair(a, n);
}

class Tree {
  constructor() {
    this.root = { parent: null, text: "", by: "you", children: [], recent: null };
    this.past = [this.root];
    this.at = 0; // in past, where undo and redo go
    this.typed = null; // what further typing joins
  }

  get current() {
    return this.past[this.at];
  }

  path(node = this.current) {
    const path = [];
    for (; node; node = node.parent) path.push(node);
    return path.reverse();
  }

  text(node = this.current) {
    return this.path(node).map((one) => one.text).join("");
  }

  add(parent, text, by) {
    const node = { parent, text, by, children: [], recent: null };
    parent.children.push(node);
    return node;
  }

  remember(node) { // where a walk downwards goes
    for (; node.parent; node = node.parent) node.parent.recent = node;
  }

  // A node, or what is left in the tree of the way to it.
  still(node) {
    const path = this.path(node), there = (one) => (one.parent ? one.parent.children.includes(one) : one === this.root);
    const gone = path.findIndex((one) => !there(one));
    return gone < 0 ? node : path[gone - 1] || this.root;
  }

  go(node) {
    node = this.still(node);
    this.typed = null;
    this.remember(node);
    if (node === this.current) return;
    this.past.splice(this.at + 1, Infinity, node);
    this.at++;
  }

  // The node that ends behind the first `length` characters of the current text; one is cut in two
  // where none does.
  cut(length) {
    let start = 0;
    for (const node of this.path()) {
      const end = start + node.text.length;
      if (end === length) return node;
      if (end > length) {
        const upper = { ...node, text: node.text.slice(0, length - start), children: [node], recent: node };
        const beside = node.parent.children;
        beside[beside.indexOf(node)] = upper;
        if (node.parent.recent === node) node.parent.recent = upper;
        node.text = node.text.slice(length - start);
        node.parent = upper;
        return upper;
      }
      start = end;
    }
    throw new Error(`The text has no ${length} characters.`);
  }

  // Go on in another way behind the first `length` characters.
  branch(length, text, by) {
    if (this.text().slice(length) === text) return;
    const node = this.cut(length);
    this.go(text ? node.children.find((child) => child.text === text) || this.add(node, text, by) : node);
  }

  // The writer changed the text. What `joins` is one step with what was typed before it.
  edit(text, joins) {
    const before = this.text(), leaf = this.current, start = before.length - leaf.text.length;
    if (text === before) return;
    const n = commonStart(before, text);
    if (joins && leaf === this.typed && !leaf.children.length && n >= start) {
      leaf.text = text.slice(start);
      if (!leaf.text) this.drop();
      return;
    }
    const node = this.cut(n);
    this.go(n < text.length ? this.add(node, text.slice(n), "you") : node);
    this.typed = n < text.length ? this.current : null;
  }

  // Take a node away with all that is behind it.
  remove(node) {
    const { parent } = node;
    parent.children = parent.children.filter((one) => one !== node);
    if (parent.recent === node) parent.recent = null;
  }

  // Take the current node away again, which came last and has nothing behind it.
  drop() {
    const { parent, children } = this.current;
    if (!parent || children.length) return;
    this.remove(this.current);
    this.past.length = this.at--;
    this.typed = null;
    if (this.current !== parent) this.go(parent);
  }

  undo() {
    return this.step(-1);
  }

  redo() {
    return this.step(1);
  }

  step(by) {
    if (!this.past[this.at + by]) return false;
    this.at += by;
    this.typed = null;
    this.remember(this.current);
    return true;
  }

  // From a node on to the end of the way that was taken last.
  end(node) {
    while (node.children.length) node = node.recent || node.children[node.children.length - 1];
    return node;
  }

  // To the branch before or after this one: what follows here, else what stands beside the nearest fork.
  walk(step) {
    const from = this.current;
    if (from.children.length) {
      this.go(this.end(from.children[step > 0 ? 0 : from.children.length - 1]));
      return true;
    }
    let node = from;
    while (node.parent && node.parent.children.length < 2) node = node.parent;
    if (!node.parent) return false;
    const all = node.parent.children;
    this.go(this.end(all[(all.indexOf(node) + step + all.length) % all.length]));
    return true;
  }

  // ---- as JSON: each node behind its parent ----

  toJSON() {
    const nodes = [], number = new Map(), waiting = [this.root];
    while (waiting.length) {
      const node = waiting.pop();
      number.set(node, nodes.length);
      nodes.push({ parent: node.parent && number.get(node.parent), text: node.text, by: node.by });
      waiting.push(...node.children.slice().reverse());
    }
    return { nodes, current: number.get(this.still(this.current)) };
  }

  static fromJSON(value) {
    const wrong = (what) => { throw new Error(`This is not a text of Folio's page: ${what}.`); };
    if (!value || !Array.isArray(value.nodes) || !value.nodes.length) wrong("it has no list of nodes");
    const tree = new Tree(), made = [], inside = (n, end) => Number.isInteger(n) && n >= 0 && n < end;
    value.nodes.forEach((entry, i) => {
      if (!entry || typeof entry.text !== "string") wrong(`node ${i} has no text`);
      if (entry.by !== "you" && entry.by !== "model") wrong(`node ${i} is by neither you nor the model`);
      if (i === 0 && (entry.parent !== null || entry.text)) wrong("its first node is no beginning");
      if (i > 0 && !inside(entry.parent, i)) wrong(`the parent of node ${i} does not stand before it`);
      made.push(i ? tree.add(made[entry.parent], clean(entry.text), entry.by) : tree.root);
    });
    if (!inside(value.current, made.length)) wrong("it does not say where you are");
    const current = made[value.current];
    // What was kept while a model began to write has branches without text.
    for (const node of made.reverse()) if (node.parent && !node.text && !node.children.length) tree.remove(node);
    tree.past = [tree.still(current)];
    tree.remember(tree.current);
    return tree;
  }
}
