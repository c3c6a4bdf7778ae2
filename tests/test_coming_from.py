"""The same task in another library and in ours, as docs/coming_from shows it: both give the same number."""

import os
import re
import subprocess
from pathlib import Path

import pytest

PAGES = {page.stem: page.read_text() for page in (Path(__file__).parent.parent / "docs" / "coming_from").glob("*.md")}
RUN = sorted(name for name, page in PAGES.items() if ' title="' in page and "**not run**" not in page)
PEERS = os.environ.get("HYPERGRAD_PEERS")
TOLERANCE = {"optuna": 1e-4}
"""A search has no hypergradient; there the lowest dev losses are compared."""


def blocks(page: str, info: str) -> list[str]:
    return re.findall(rf"^```python{info}\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("name", sorted(PAGES))
def test_ours_runs(name):
    found = {}
    exec("\n".join(blocks(PAGES[name], "")), found)
    assert isinstance(found["ours"], float)


@pytest.mark.slow
@pytest.mark.skipif(PEERS is None, reason="HYPERGRAD_PEERS names no Python of scripts/peers-env")
@pytest.mark.parametrize("name", RUN)
def test_theirs_gives_the_same(name):
    if subprocess.run([str(PEERS), "-c", f"import {name}"], cwd="/", capture_output=True, check=False).returncode:
        pytest.skip(f"{PEERS} has no {name}")
    data, ours = blocks(PAGES[name], "")
    (theirs,) = blocks(PAGES[name], ' title="[^"]+"')
    found = {}
    exec(data + ours, found)
    code = f"{data}{theirs}\nprint('theirs', theirs)"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    said = subprocess.check_output([str(PEERS), "-c", code], env=environment, text=True, cwd="/")
    number = float(said.split("theirs ")[1])
    print(f"{name}: theirs {number!r}, ours {found['ours']!r}")
    assert abs(number - found["ours"]) <= TOLERANCE.get(name, 1e-6) * abs(number)
