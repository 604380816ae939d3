// The tree as a list of its branches, and continuations side by side.

"use strict";

const ROWS = 200; // of the list
const BEGINNING = 60; // characters of a branch that are shown

// The tree without single children: [{nodes, side, here}], nodes from top to bottom; `side` is how far it
// stands from the way that was taken, `level` how many forks lie above it.
function branchesOf(tree) {
  const path = new Set(tree.path()), rows = [], waiting = [[tree.root, 0, 1]];
  while (waiting.length && rows.length < ROWS) {
    const [top, side, level] = waiting.pop(), nodes = [top];
    let last = top;
    while (last.children.length === 1 && last !== tree.current) nodes.push((last = last.children[0]));
    rows.push({ nodes, side, level, here: last === tree.current, taken: path.has(top) });
    const main = last.recent || last.children[last.children.length - 1];
    const others = last.children.filter((child) => child !== main);
    // The way that was taken comes last, and goes on straight.
    if (main) waiting.push([main, side, level + 1]);
    for (const child of others.reverse()) waiting.push([child, side + 1, level + 1]);
  }
  return rows;
}

class Branches {
  constructor(list, go) {
    this.list = list;
    this.rows = [];
    this.focused = 0;
    const chosen = (element) => this.rows[[...list.children].indexOf(element.closest("[role=treeitem]"))];
    list.onclick = (event) => {
      if (event.target !== list) go(chosen(event.target).nodes);
    };
    list.onkeydown = (event) => {
      const items = [...list.children], at = items.indexOf(event.target), { level } = this.rows[at];
      const above = this.rows.slice(0, at).map((row) => row.level).lastIndexOf(level - 1);
      const below = this.rows.findIndex((row, i) => i > at && row.level === level + 1);
      const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: items.length - 1, ArrowLeft: above, ArrowRight: below }[event.key];
      if (event.ctrlKey || event.altKey || event.metaKey) return;
      if (event.key === "Enter" || event.key === " ") go(this.rows[at].nodes);
      else if (to === undefined) return;
      else if (items[to]) this.focus(to);
      event.preventDefault();
    };
  }

  focus(i) {
    const items = [...this.list.children];
    items.forEach((item, j) => (item.tabIndex = i === j ? 0 : -1));
    items[i].focus();
  }

  show(tree) {
    const held = this.list.contains(document.activeElement);
    this.rows = branchesOf(tree);
    this.list.replaceChildren(...this.rows.map((row) => {
      const item = document.createElement("li"), text = row.nodes.map((node) => node.text).join("");
      const words = text.trim().replace(/\s+/g, " ");
      item.textContent = shortened(words, BEGINNING) || (row.nodes[0].parent ? "\u21b5" : "(the beginning)");
      item.setAttribute("role", "treeitem");
      item.setAttribute("aria-level", row.level);
      item.setAttribute("aria-selected", row.here);
      item.className = `${row.taken ? "taken" : ""} ${row.nodes.every((node) => node.by === "model") ? "model" : ""}`;
      item.style.setProperty("--side", Math.min(row.side, 8));
      item.tabIndex = row.here ? 0 : -1;
      return item;
    }));
    const here = this.rows.findIndex((row) => row.here);
    if (here < 0) this.list.firstChild.tabIndex = 0;
    if (held) this.focus(Math.max(0, here));
  }
}

// Continuations of one text, each a button that takes it.
class SideBySide {
  constructor(box, take) {
    this.box = box;
    this.take = take;
    this.nodes = [];
  }

  begin(nodes) {
    this.nodes = nodes;
    this.box.hidden = !nodes.length;
    this.box.replaceChildren(...nodes.map((node, i) => {
      const card = document.createElement("button"), key = document.createElement("kbd");
      key.textContent = `Alt+${i + 1}`;
      card.type = "button";
      card.append(key, document.createElement("span"));
      card.lastChild.textContent = node.text;
      card.onclick = () => this.take(node);
      return card;
    }));
  }

  grow(i) {
    this.box.children[i].lastChild.textContent = this.nodes[i].text;
  }
}
