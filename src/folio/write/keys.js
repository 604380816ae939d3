// Keys, by their names: "Ctrl+Shift+Enter".

"use strict";

// On a Mac, Cmd counts as Ctrl.
function keyName({ ctrlKey, metaKey, altKey, shiftKey, key }) {
  const held = [[ctrlKey || metaKey, "Ctrl"], [altKey, "Alt"], [shiftKey, "Shift"]];
  return [...held.filter(([down]) => down).map(([, name]) => name), key].join("+");
}

// Do what a key is for, by a table whose entries say whether they had something to do.
function pressed(table, event) {
  const act = event.isComposing ? undefined : table[keyName(event)];
  if (!act || !act()) return false;
  event.preventDefault();
  return true;
}
