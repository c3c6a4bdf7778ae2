// Wide code and tables scroll. The theme lets the keyboard reach code only where there is a mouse, and tables nowhere.
addEventListener("load", () => {
  for (const box of document.querySelectorAll("pre > code, .md-typeset__scrollwrap")) {
    box.tabIndex = 0
    new MutationObserver(() => { if (box.tabIndex < 0) box.tabIndex = 0 }).observe(box, { attributeFilter: ["tabindex"] })
  }
})
