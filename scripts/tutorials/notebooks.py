"""Three tutorials as notebooks: the same text and code, without what the code printed.

They are docs/notebooks/*.py, in jupytext's percent format.
"""

import re
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"
FOLDER = DOCS / "notebooks"
NAMES = ("tuning", "cleaning", "influence")
_HEADER = "# ---\n# jupyter:\n#   kernelspec:\n#     display_name: Python 3\n#     name: python3\n# ---\n"
_CODE = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n.*?^```\n)?", flags=re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?!https?:)([^)#]+)")


def source(page: str) -> str:
    """The notebook of a page, in the percent format."""
    cells = []
    for place, part in enumerate(_CODE.split(page)):
        if place % 2:
            cells.append(f"# %%\n{part}")
        elif part.strip():
            cells.append("# %% [markdown]\n" + "".join(f"# {line}".rstrip() + "\n" for line in _text(part)))
    return "\n".join([_HEADER, *cells])


def _text(part: str) -> list[str]:
    # A page's links lead from docs/tutorials, and those of a notebook from docs/notebooks.
    text = _LINK.sub(lambda link: f"]({_moved(link[1])}", part)
    return text.strip().splitlines()


def _moved(target: str) -> str:
    return target if target.startswith("../") else f"../tutorials/{target}"


def write() -> None:
    """Write the notebooks from the pages."""
    FOLDER.mkdir(exist_ok=True)
    for name in NAMES:
        page = DOCS / "tutorials" / f"{name}.md"
        (FOLDER / f"{name}.py").write_text(source(page.read_text()))
