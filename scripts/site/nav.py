"""Fills the nav of mkdocs.yml: a pattern becomes its pages, and `page.md#` that page with those that it lists."""

import re
from collections.abc import Iterator
from fnmatch import fnmatch
from typing import Any

Nav = Any
"""A page, {title: Nav}, or a list of them, as in mkdocs.yml."""


def on_files(files: Any, config: Any) -> Any:
    """Fills the nav; mkdocs calls it."""
    pages = {file.src_uri: file.content_string for file in files.documentation_pages()}
    config.nav = filled(config.nav, pages)
    return files


def filled(nav: list[Nav], pages: dict[str, str]) -> list[Nav]:
    """`nav` with the pages that there are; `pages` holds their Markdown."""
    taken = set(named(nav))

    def entries(item: Nav) -> list[Nav]:
        if isinstance(item, list):
            return [entry for one in item for entry in entries(one)]
        if isinstance(item, dict):
            ((title, inside),) = item.items()
            found = entries(inside)
            return [{title: inside if found == [inside] else found}] if found else []
        if item.endswith("#"):
            return [item[:-1], *listed(pages[item[:-1]])]
        if "*" in item:
            return [page for page in pages if fnmatch(page, item) and page not in taken]
        if item not in pages:
            raise ValueError(f"The nav of mkdocs.yml names {item}, but there is no such page.")
        return [item]

    return entries(nav)


def named(nav: Nav) -> Iterator[str]:
    """All pages of a nav."""
    if isinstance(nav, str):
        yield nav
    else:
        for item in nav.values() if isinstance(nav, dict) else nav:
            yield from named(item)


def listed(markdown: str) -> list[Nav]:
    """One section for each heading of a page, with the pages that its list items begin with."""
    _, *parts = re.split(r"^## (.+)$", markdown, flags=re.MULTILINE)
    return [
        {title: re.findall(r"^- \[[^\]]*\]\(([^)#]+)[)#]", part, flags=re.MULTILINE)}
        for title, part in zip(parts[::2], parts[1::2], strict=True)
    ]
