// Wide code and tables scroll. The theme lets the keyboard reach code only where there is a mouse, and tables nowhere.
addEventListener("load", () => {
  const tables = [...document.querySelectorAll(".md-typeset__scrollwrap")]
  const wide = tables.filter((box) => box.scrollWidth > box.clientWidth)
  for (const box of wide) box.classList.add("scrolls")
  for (const box of [...document.querySelectorAll("pre > code"), ...tables]) {
    box.tabIndex = 0
    new MutationObserver(() => { if (box.tabIndex < 0) box.tabIndex = 0 }).observe(box, { attributeFilter: ["tabindex"] })
  }
})
