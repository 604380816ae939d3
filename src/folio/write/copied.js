// What of the text stands in the training text, as a list that leads to its places.

"use strict";

const QUOTED = 160, LISTED = 20; // characters of a span, and spans

class Copied {
  constructor(section, select) {
    this.section = section;
    this.select = select;
  }

  show(text, spans) {
    this.section.hidden = !spans.length;
    this.section.querySelector("ul").replaceChildren(...spans.slice(0, LISTED).map(({ start, end, source }) => {
      const item = document.createElement("li"), button = document.createElement("button");
      button.type = "button";
      button.textContent = shortened(text.slice(start, end), QUOTED);
      button.onclick = () => this.select(start, end);
      item.append(button, ` ${source}`);
      return item;
    }));
  }
}
