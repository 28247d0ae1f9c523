/* What scrolls inside a page can be reached and scrolled by the keyboard. */
document$.subscribe(() => {
  document
    .querySelectorAll(".md-typeset__scrollwrap, .md-typeset pre > code, .md-typeset math[display=block]")
    .forEach((element) => element.setAttribute("tabindex", "0"))
})
