"""The tutorials: their code runs, and prints what the pages say it printed."""

import importlib.util
import re
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[2] / "docs" / "tutorials"
LONG = {"tuning", "stochastic_loop", "interrupted"}
"""More than ten seconds of one core."""
EXTRAS = {"sweeps": "optuna"}
"""What a page needs that the tests can do without."""
PAGES = [
    pytest.param(page, id=page.stem, marks=[pytest.mark.slow] if page.stem in LONG else [])
    for page in sorted(FOLDER.glob("*.md"))
    if page.stem != "index"
]
NUMBER = re.compile(r"[-+]?\d+\.?\d*(?:e[-+]?\d+)?")


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"tutorials_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MAKE = script("make")


def words_and_numbers(text: str) -> tuple[list[str], list[float]]:
    # The spaces of a table depend on the digits of its numbers.
    return NUMBER.sub("#", text).split(), [float(number) for number in NUMBER.findall(text)]


@pytest.mark.parametrize("page", PAGES)
def test_the_code_prints_what_the_page_says(page, tmp_path):
    if page.stem in EXTRAS and find_spec(EXTRAS[page.stem]) is None:
        pytest.skip(f"needs {EXTRAS[page.stem]}")
    ran = MAKE.run(page, tmp_path)
    said = [block["output"] or "" for block in MAKE.blocks(page.read_text())]
    for once, now in zip(said, ran.printed, strict=True):
        (words, numbers), (same, close) = words_and_numbers(once), words_and_numbers(now)
        assert words == same
        assert close == pytest.approx(numbers, rel=0.05, abs=0.01)


@pytest.mark.parametrize("page", [param.values[0] for param in PAGES], ids=lambda page: page.stem)
def test_a_page_is_short_and_has_a_question_a_picture_and_ways_on(page):
    text = page.read_text()
    code = [line for block in MAKE.blocks(text) for line in block["code"].splitlines() if line.strip()]
    assert 10 <= len(code) <= 80
    assert text.splitlines()[2].startswith("**The question.**")
    assert "## What to change next" in text
    assert "Concepts: [" in text
    (picture,) = re.findall(r"!\[(?:[^]]+)\]\((img/[^)]+\.png)\)", text)
    assert (FOLDER / picture).stat().st_size <= 80_000


def test_a_page_gets_the_output_of_its_code():
    text = "```python\n1 + 1\n```\n\n```text\n3\n```\n\n```bash\ntrue\n```\n\nthe end\n"
    assert MAKE.written(text, ["2\n", ""]) == text.replace("3", "2")
