// What else could stand at a place: a list of tokens with their probabilities.

"use strict";

// A token as it can be seen.
function nameOf(text) {
  if (text === "") return "(end)";
  return text.replace(/ /g, "\u2423").replace(/\n/g, "\u21b5").replace(/\t/g, "\u21e5")
    .replace(/[\u0000-\u001f]/g, (c) => String.fromCharCode(0x2400 + c.charCodeAt(0)))
    .replace(/[\u007f-\u009f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]/g,
      (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

function percent(p) {
  return `${(100 * p).toFixed(p >= 0.1 ? 0 : p >= 0.001 ? 1 : 2)} %`;
}

// Whether a token is text of its own: no end of a document, and no part of a character.
function isText(text) {
  return text !== "" && !text.includes("\ufffd") && !/^bytes:(\\x[0-9a-f]{2})+$/.test(text);
}

class Choices {
  // `choose(text)` takes one, `move(step)` asks for the place before or after, `leave()` goes back.
  constructor(list, { choose, move, leave }) {
    this.list = list;
    this.choose = choose;
    this.options = [];
    this.active = 0;
    this.shown = "";
    list.onkeydown = (event) => {
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key], side = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (event.ctrlKey || event.altKey || event.metaKey) return;
      if (step) this.activate((this.active + step + this.options.length) % this.options.length);
      else if (event.key === "Home") this.activate(0);
      else if (event.key === "End") this.activate(this.options.length - 1);
      else if (side) move(side);
      else if (event.key === "Enter" || event.key === " ") this.take(this.active);
      else if (event.key === "Escape") leave();
      else return;
      event.preventDefault();
    };
    list.onclick = (event) => {
      const option = event.target.closest("[role=option]");
      if (option) this.take([...list.children].indexOf(option));
    };
  }

  // `top` is [[text, p]], the likeliest first; `now` stands there, and is shown as chosen.
  show(top, now) {
    const key = JSON.stringify([top, now]);
    if (key === this.shown) return;
    this.shown = key;
    this.options = top;
    this.list.replaceChildren(...top.map(([text, p], i) => {
      const option = document.createElement("li");
      const [name, bar, share] = ["code", "i", "span"].map((tag) => document.createElement(tag));
      name.textContent = nameOf(text);
      bar.style.width = `${(100 * p) / (top[0][1] || 1)}%`;
      share.textContent = percent(p);
      option.id = `choice-${i}`;
      option.setAttribute("role", "option");
      option.setAttribute("aria-selected", text === now);
      option.setAttribute("aria-disabled", !isText(text));
      option.append(name, bar, share);
      return option;
    }));
    this.activate(Math.max(0, top.findIndex(([text]) => text === now)));
  }

  activate(i) {
    this.active = i;
    [...this.list.children].forEach((option, j) => option.classList.toggle("active", i === j));
    if (this.list.children[i]) {
      this.list.setAttribute("aria-activedescendant", `choice-${i}`);
      if (document.activeElement === this.list) this.list.children[i].scrollIntoView({ block: "nearest" });
    } else this.list.removeAttribute("aria-activedescendant");
  }

  take(i) {
    const [text] = this.options[i] || [""];
    if (isText(text)) this.choose(text);
  }
}
