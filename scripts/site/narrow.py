"""What a narrow screen needs: pictures that open in full size, and sentences in tables that keep some width."""

import re
from typing import Any

PICTURE = re.compile(r'<p>(<img [^>]*src="([^"]+)"[^>]*>)</p>')
CELL = re.compile(r"<td>((?:(?!</td>).)*)</td>", re.DOTALL)
SENTENCE = 24
"""Characters from which the text of a cell is a sentence."""


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    """The HTML of the Markdown of a page with these changes; mkdocs calls it."""
    html = PICTURE.sub(r'<p><a href="\2" title="Open in full size">\1</a></p>', html)
    return CELL.sub(_cell, html)


def _cell(cell: re.Match[str]) -> str:
    is_sentence = len(re.sub(r"<[^>]*>", "", cell[1])) >= SENTENCE
    return f'<td class="sentence">{cell[1]}</td>' if is_sentence else cell[0]
