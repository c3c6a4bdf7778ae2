"""What the theme leaves out for those who read with a keyboard or a screen reader, or without a network."""

from typing import Any

CHANGES = {
    'data-md-component="search" role="dialog"': 'data-md-component="search" role="dialog" aria-label="Search"',
    ' data-md-component="source"': "",  # would ask GitHub for the number of stars
}


def on_post_page(output: str, page: Any, config: Any) -> str:
    """The HTML of a page with these changes; mkdocs calls it."""
    for old, new in CHANGES.items():
        output = output.replace(old, new)
    return output
