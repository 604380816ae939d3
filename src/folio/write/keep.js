// The text stays in the browser, a key for each run, and leaves and comes back as a file.

"use strict";

const FORMAT = "folio-write", VERSION = 1, LARGEST_FILE = 32e6;

function packed(run, tree, settings) {
  return JSON.stringify({ format: FORMAT, version: VERSION, run, settings, ...tree.toJSON() });
}

// The tree and the settings of a file, or an error that says what is wrong with it.
function unpacked(json) {
  let value;
  try {
    value = JSON.parse(json);
  } catch {
    throw new Error("This file is not JSON, so it cannot be opened here.");
  }
  if (!value || value.format !== FORMAT) throw new Error(`This file was not saved by Folio's page: its format is not ${FORMAT}.`);
  if (value.version !== VERSION) throw new Error(`This file has version ${value.version} of its format; this page reads ${VERSION}.`);
  return { tree: Tree.fromJSON(value), settings: value.settings || {}, run: String(value.run) };
}

class Store {
  constructor(run) {
    this.run = run;
    this.key = `folio write ${run}`;
    this.kept = null; // what this page last read or wrote
    this.unread = ""; // says where a text stays that cannot be read
  }

  // What was kept; null where there is nothing. What cannot be read stays, and this page takes another key.
  load() {
    for (let n = 2; ; n++) {
      try {
        this.kept = localStorage.getItem(this.key);
      } catch {
        return null;
      }
      try {
        return this.kept && unpacked(this.kept);
      } catch (error) {
        this.unread = `${error.message} This browser still keeps it, under "${this.key}".`;
        this.key = `folio write ${this.run} (${n})`;
      }
    }
  }

  // Whether the browser keeps it.
  save(tree, settings) {
    try {
      this.kept = packed(this.run, tree, settings);
      localStorage.setItem(this.key, this.kept);
      return true;
    } catch {
      return false;
    }
  }
}

function saveFile(name, text, type) {
  const link = document.createElement("a"), address = URL.createObjectURL(new Blob([text], { type }));
  link.href = address;
  link.download = name.replace(/[^\w.-]+/g, "-");
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}

async function readFile(file) {
  if (file.size > LARGEST_FILE) throw new Error("This file has more than 32 MB, so it is not a text of this page.");
  return unpacked(await file.text());
}
