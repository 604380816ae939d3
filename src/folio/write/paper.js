// The field that is written in, and a copy of its text behind it, which carries the colors, the lines
// and the ghost. Both are laid out alike, so that one lies on the other.

"use strict";

const LEVELS = 7; // of color; one for each nat of surprisal

// How surprising a token is, in words of the style sheet.
function levelOf(logprob) {
  return logprob === null ? 0 : Math.min(LEVELS, Math.floor(-logprob));
}

// Cut a text where its look changes: [{text, look}], `look` a class name.
function segmentsOf(text, { tokens, copied, place, colors }) {
  const looks = []; // [start, end, class]
  tokens.forEach((token, i) => {
    const level = colors ? levelOf(token.logprob) : 0;
    if (level) looks.push([token.start, token.end, `s${level}`]);
    if (i === place) looks.push([token.start, token.end, "place"]);
  });
  for (const { start, end } of copied) looks.push([start, end, "copied"]);
  looks.sort((a, b) => a[0] - b[0]);
  const edges = [...new Set([0, text.length, ...looks.flatMap(([start, end]) => [start, end])])]
    .filter((edge) => edge <= text.length).sort((a, b) => a - b);
  const segments = [];
  let next = 0, open = [];
  for (let i = 0; i + 1 < edges.length; i++) {
    const at = edges[i];
    open = open.filter(([, end]) => end > at);
    while (next < looks.length && looks[next][0] <= at) open.push(looks[next++]);
    const look = open.filter(([, end]) => end > at).map((one) => one[2]).sort().join(" ");
    const last = segments[segments.length - 1], piece = text.slice(at, edges[i + 1]);
    if (last && last.look === look && look !== "place") last.text += piece;
    else segments.push({ text: piece, look });
  }
  return segments;
}

class Paper {
  constructor(field, behind) {
    this.field = field;
    this.behind = behind;
    this.shown = []; // segments, each with its element
    this.ghost = document.createElement("span");
    this.ghost.className = "ghost";
    this.end = document.createElement("span");
    this.end.textContent = "\u200b"; // so that a last line end has its line
    behind.replaceChildren(this.ghost, this.end);
  }

  get atEnd() {
    const { selectionStart, selectionEnd, value } = this.field;
    return selectionStart === value.length && selectionEnd === value.length;
  }

  // Put another text into the field, the caret behind it.
  write(text) {
    if (this.field.value !== text) this.field.value = text;
    this.field.setSelectionRange(text.length, text.length);
  }

  paint(ghost, looks) {
    const segments = segmentsOf(this.field.value, looks), shown = this.shown;
    let same = 0;
    while (same < segments.length && same < shown.length
      && segments[same].text === shown[same].text && segments[same].look === shown[same].look) same++;
    for (const segment of shown.splice(same)) segment.element.remove();
    const made = segments.slice(same).map((segment) => {
      const element = document.createElement("span");
      element.textContent = segment.text;
      element.className = segment.look;
      shown.push({ ...segment, element });
      return element;
    });
    this.ghost.before(...made);
    if (this.ghost.textContent !== ghost) this.ghost.textContent = ghost;
  }

  reveal() { // what was written last
    this.end.scrollIntoView({ block: "nearest" });
  }
}
