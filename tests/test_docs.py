"""The pages of docs/ say what is true: their code runs."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

EXTRAS = {"kfac": "curvlinops"}
"""What a page needs that the tests can do without."""
PAGES = sorted((Path(__file__).parent.parent / "docs").glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_code_of_a_page_runs(page):
    if page.stem in EXTRAS and find_spec(EXTRAS[page.stem]) is None:
        pytest.skip(f"needs {EXTRAS[page.stem]}")
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    exec(compile("\n".join(blocks), page.name, "exec"), {})
