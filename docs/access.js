// What the theme leaves out for those who use a keyboard or listen to a page.
function complete() {
  document.querySelector(".md-search")?.setAttribute("aria-label", "Search");
  for (const box of document.querySelectorAll(".md-typeset__scrollwrap, .md-typeset pre > code")) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0; // so that arrow keys scroll it
  }
}
addEventListener("load", complete);
addEventListener("resize", complete);
