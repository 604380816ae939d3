// Keys, by their names: "Ctrl+Shift+Enter".

"use strict";

// On a Mac, Cmd counts as Ctrl. Letters are small: with Cmd+Shift they come so there, with Caps Lock otherwise.
function keyName({ ctrlKey, metaKey, altKey, shiftKey, key }) {
  const held = [[ctrlKey || metaKey, "Ctrl"], [altKey, "Alt"], [shiftKey, "Shift"]];
  return [...held.filter(([down]) => down).map(([, name]) => name), key.length === 1 ? key.toLowerCase() : key].join("+");
}

// The digit, 1 to 8, that is pressed with Alt, else 0. Ctrl+Alt is AltGr on some systems, which writes a character.
function digitWithAlt({ altKey, ctrlKey, code }) {
  return altKey && !ctrlKey && /^Digit[1-8]$/.test(code) ? Number(code[5]) : 0;
}

// Do what a key is for, by a table whose entries say whether they had something to do.
function pressed(table, event) {
  const act = event.isComposing ? undefined : table[keyName(event)];
  if (!act || !act()) return false;
  event.preventDefault();
  return true;
}
