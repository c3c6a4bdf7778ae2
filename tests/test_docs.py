"""The pages of docs/ say what is true: their code runs."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

EXTRAS = {"kfac": "curvlinops"}
"""What a page needs that the tests can do without."""
DOCS = Path(__file__).parent.parent / "docs"
OWN_TEST = {"checking"}
"""Pages whose code another test runs, and looks at what it prints."""
PAGES = [page for folder in (DOCS, DOCS / "start") for page in sorted(folder.glob("*.md")) if page.stem not in OWN_TEST]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS).with_suffix("")))
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if page.stem in EXTRAS and find_spec(EXTRAS[page.stem]) is None:
        pytest.skip(f"needs {EXTRAS[page.stem]}")
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    exec(compile("\n".join(blocks), page.name, "exec"), {})
