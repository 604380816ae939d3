// What the theme leaves out for those who use a keyboard or listen to a page.
function complete() {
  document.querySelector(".md-search")?.setAttribute("aria-label", "Search");
  const boxes = ".md-typeset__scrollwrap, .md-typeset pre > code, .md-typeset p:has(> img)";
  for (const box of document.querySelectorAll(boxes)) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0; // so that arrow keys scroll it
  }
}
addEventListener("load", complete);
addEventListener("resize", complete);
