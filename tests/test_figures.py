"""The pictures of docs/img: each has a script that draws it, a page that shows it, and a size that loads at once."""

import re
from importlib import import_module
from pathlib import Path

import pytest

from scripts.figures.__main__ import FIGURES
from scripts.figures.style import FOLDER

ROOT = Path(__file__).parent.parent
SMALL = {"errors": {"inner_steps": 100}, "tape_cost": {"inner_steps": 3, "rounds": 1}}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_can_be_drawn(name):
    figure = import_module(f"scripts.figures.{name}").draw(**SMALL.get(name, {}))
    sizes = {text.get_fontsize() for text in figure.findobj(lambda part: hasattr(part, "get_fontsize"))}
    assert min(sizes) >= 9


@pytest.mark.parametrize("name", FIGURES)
def test_a_picture_is_small_and_shown_with_its_text(name):
    assert (FOLDER / f"{name}.svg").stat().st_size <= 100_000
    pages = "\n".join(page.read_text() for page in (ROOT / "docs").rglob("*.md"))
    assert re.search(rf"!\[[^\]]{{20,}}\]\((\.\./)?img/{name}\.svg\)", pages)
