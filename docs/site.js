// Long lines of code scroll. The theme lets the keyboard reach them only where there is a mouse.
for (const code of document.querySelectorAll("pre > code")) {
  code.tabIndex = 0
  new MutationObserver(() => { if (code.tabIndex < 0) code.tabIndex = 0 })
    .observe(code, { attributeFilter: ["tabindex"] })
}
