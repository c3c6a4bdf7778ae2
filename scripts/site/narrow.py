"""What a narrow screen needs: pictures that open in full size, lines that wrap, tables whose columns fit their text."""

import re
from typing import Any

PICTURE = re.compile(r'<p>(<img [^>]*src="([^"]+)"[^>]*>)</p>')
PLAIN = re.compile(r'<div class="highlight">(<pre><span></span><code>([^<]*)</code>)')
"""Code in no language, such as formulas, commands and what they print."""
COLUMNS = re.compile(r"[│┃]|\S {2,}\S")
CELL = re.compile(r"<td>((?:(?!</td>).)*)</td>", re.DOTALL)
KINDS = {16: "word", 24: "words", 80: "phrase", 200: "sentence"}
"""The class of a cell, by the most characters that its text has; a longer one is a paragraph."""


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    """The HTML of the Markdown of a page with these changes; mkdocs calls it."""
    html = PICTURE.sub(r'<p><a href="\2" title="Open in full size">\1</a></p>', html)
    html = PLAIN.sub(_plain, html)
    return CELL.sub(_cell, html)


def _plain(code: re.Match[str]) -> str:
    is_table = sum(bool(COLUMNS.search(line)) for line in code[2].splitlines()) > 2
    return code[0] if is_table else f'<div class="highlight wraps">{code[1]}'


def _cell(cell: re.Match[str]) -> str:
    length = len(re.sub(r"<[^>]*>", "", cell[1]))
    kind = next((kind for most, kind in KINDS.items() if length <= most), "paragraph")
    return f'<td class="{kind}">{cell[1]}</td>'
