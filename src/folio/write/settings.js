// How the model writes, as the fields of the page say it.

"use strict";

const SLIDERS = ["temperature", "top_p", "min_p"], NUMBERS = ["top_k", "seed", "max_tokens", "n"];
const SWITCHES = ["ghosts", "colors"];

class Settings {
  constructor(find, changed) {
    this.find = find;
    for (const name of [...SLIDERS, ...NUMBERS, ...SWITCHES]) {
      find(name).addEventListener("input", () => {
        this.say();
        changed(name);
      });
    }
    this.say();
  }

  say() {
    for (const name of SLIDERS) {
      const field = this.find(name);
      field.previousElementSibling.textContent = Number(field.value).toFixed(2);
    }
  }

  // A number within its bounds, whatever was typed.
  number(name) {
    const { value, min, max, defaultValue } = this.find(name), n = Number(value === "" ? defaultValue : value);
    const whole = SLIDERS.includes(name) ? n : Math.round(n);
    return Math.min(Number(max), Math.max(Number(min), Number.isFinite(whole) ? whole : Number(defaultValue)));
  }

  on(name) {
    return this.find(name).checked;
  }

  get sampling() {
    return Object.fromEntries([...SLIDERS, "top_k", "seed"].map((name) => [name, this.number(name)]));
  }

  get values() {
    const numbers = [...SLIDERS, ...NUMBERS].map((name) => [name, this.number(name)]);
    return Object.fromEntries([...numbers, ...SWITCHES.map((name) => [name, this.on(name)])]);
  }

  set values(values) {
    for (const name of [...SLIDERS, ...NUMBERS])
      if (Number.isFinite(values[name])) this.find(name).value = values[name];
    for (const name of SWITCHES) if (typeof values[name] === "boolean") this.find(name).checked = values[name];
    this.say();
  }
}
