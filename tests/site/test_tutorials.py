"""The tutorials: their code runs, and prints what the pages say it printed."""

import re
from importlib.util import find_spec
from xml.etree import ElementTree

import pytest

from scripts.tutorials import __main__ as tutorials
from scripts.tutorials import notebooks

IN_SHORT_TESTS = {"influence"}
"""The others take ten seconds of one core or more."""
EXTRAS = {"sweeps": "optuna"}
"""What a page needs that the tests can do without."""
PAGES = [
    pytest.param(page, id=page.stem, marks=[] if page.stem in IN_SHORT_TESTS else [pytest.mark.slow])
    for page in tutorials.PAGES
]
NUMBER = re.compile(r"[-+]?\d+\.?\d*(?:e[-+]?\d+)?")


def words_and_numbers(text: str) -> tuple[list[str], list[float]]:
    # The spaces of a table depend on the digits of its numbers.
    return NUMBER.sub("#", text).split(), [float(number) for number in NUMBER.findall(text)]


@pytest.mark.parametrize("page", PAGES)
def test_the_code_prints_what_the_page_says(page, tmp_path):
    if page.stem in EXTRAS and find_spec(EXTRAS[page.stem]) is None:
        pytest.skip(f"needs {EXTRAS[page.stem]}")
    ran = tutorials.run(page, tmp_path)
    said = [block["output"] or "" for block in tutorials.blocks(page.read_text())]
    for once, now in zip(said, ran.printed, strict=True):
        (words, numbers), (same, close) = words_and_numbers(once), words_and_numbers(now)
        assert words == same
        assert close == pytest.approx(numbers, rel=0.05, abs=0.01)


@pytest.mark.parametrize("page", tutorials.PAGES, ids=lambda page: page.stem)
def test_a_page_is_short_and_has_a_question_a_picture_and_ways_on(page):
    text = page.read_text()
    code = [line for block in tutorials.blocks(text) for line in block["code"].splitlines() if line.strip()]
    assert 10 <= len(code) <= 80
    assert text.splitlines()[2].startswith("**The question.**")
    assert "## What to change next" in text
    assert "Concepts: [" in text
    (picture,) = re.findall(r"!\[(?:[^]]+)\]\((img/[^)]+\.png)\)", text)
    assert (page.parent / picture).stat().st_size <= 80_000


def test_a_page_gets_the_output_of_its_code():
    text = "```python\n1 + 1\n```\n\n```text\n3\n```\n\n```bash\ntrue\n```\n\nthe end\n"
    assert tutorials.written(text, ["2\n", ""]) == text.replace("3", "2")


@pytest.mark.parametrize("name", notebooks.NAMES)
def test_a_notebook_has_the_text_and_the_code_of_its_page(name):
    page = (notebooks.DOCS / "tutorials" / f"{name}.md").read_text()
    assert (notebooks.FOLDER / f"{name}.py").read_text() == notebooks.source(page), "run python -m scripts.tutorials"


@pytest.mark.slow
@pytest.mark.parametrize("name", notebooks.NAMES)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::RuntimeWarning")  # jupyter's own
def test_a_notebook_runs_and_shows_its_results(name, tmp_path):
    jupytext, nbclient = pytest.importorskip("jupytext"), pytest.importorskip("nbclient")
    notebook = jupytext.read(notebooks.FOLDER / f"{name}.py")
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    shown = [output["data"]["text/html"] for output in outputs if "text/html" in output.get("data", {})]
    assert len(shown) == {"tuning": 2, "cleaning": 1, "influence": 0}[name]
    for html in shown:
        tags = [element.tag.rpartition("}")[2] for element in ElementTree.fromstring(html).iter()]
        assert tags.count("table") == 1
        assert tags.count("svg") == 2
