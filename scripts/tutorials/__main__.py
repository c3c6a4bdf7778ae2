"""Runs tutorials: puts below each piece of code what it printed, and draws the picture from its results.

`python -m scripts.tutorials tuning` does so for one page, and without a name for all. The three that are notebooks too
are written as such.
"""

import ast
import contextlib
import io
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from scripts.tutorials import notebooks

ROOT = Path(__file__).resolve().parents[2]
PAGES = [page for page in sorted((ROOT / "docs" / "tutorials").glob("*.md")) if page.stem != "index"]
_BLOCK = re.compile(
    r'^```(?P<language>python|bash)(?: title="(?P<file>[^"]+)")?\n(?P<code>.*?)^```\n'
    r"(?:\n```text\n(?P<output>.*?)^```\n)?",
    flags=re.MULTILINE | re.DOTALL,
)


@dataclass
class Ran:
    """What the code of a page did.

    Attributes:
        names: the variables after its last block.
        printed: by each block, in order.
    """

    names: dict[str, Any] = field(default_factory=dict)
    printed: list[str] = field(default_factory=list)


def blocks(text: str) -> Iterator[re.Match[str]]:
    """The pieces of code of a page; "output" is the text below one, as the page has it."""
    return _BLOCK.finditer(text)


def run(page: Path, folder: Path) -> Ran:
    """Run the code of a page, as a reader would in an empty folder: Python in one session, the rest in a shell.

    A block with a title is the content of a file. The last expression of a block is shown, as in a notebook.
    """
    ran = Ran({"__name__": page.stem})
    with contextlib.chdir(folder), _session(folder):
        for block in blocks(page.read_text()):
            ran.printed.append(_printed(block, ran.names))
    return ran


@contextlib.contextmanager
def _session(folder: Path) -> Iterator[None]:
    """What a new session in a folder has: torch's default dtype, and imports from there."""
    dtype, modules = torch.get_default_dtype(), set(sys.modules)
    torch.set_default_dtype(torch.float32)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        torch.set_default_dtype(dtype)
        for name in set(sys.modules) - modules:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(str(folder)):
                del sys.modules[name]


def _printed(block: re.Match[str], names: dict[str, Any]) -> str:
    if block["file"]:
        path = Path(block["file"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block["code"])
        return ""
    if block["language"] == "bash":
        env = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "110"}
        env["PYTHONPATH"] = f"{ROOT}:."
        done = subprocess.run(["bash", "-c", block["code"]], env=env, capture_output=True, text=True, check=False)
        if done.returncode and "|| true" not in block["code"]:
            raise RuntimeError(f"{block['code']}exited with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout
    with contextlib.redirect_stdout(io.StringIO()) as out:
        tree = ast.parse(block["code"])
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, "page", "exec"), names)
        value = None if last is None else eval(compile(ast.Expression(last.value), "page", "eval"), names)  # pyright: ignore[reportAttributeAccessIssue]
        if value is not None:
            print(value)
    return out.getvalue()


def written(text: str, printed: list[str]) -> str:
    """The page with what its code printed."""
    outputs = iter(printed)

    def filled(block: re.Match[str]) -> str:
        lines = "\n".join(line.rstrip() for line in next(outputs).strip("\n").splitlines())
        code = block[0][: block.end("code") - block.start()] + "```\n"
        return f"{code}\n```text\n{lines}\n```\n" if lines.strip() else code

    return _BLOCK.sub(filled, text)


def main(names: list[str]) -> None:
    """Make the pages with these names, or all."""
    from scripts.tutorials import figures  # needs matplotlib

    for page in PAGES:
        if names and page.stem not in names:
            continue
        with tempfile.TemporaryDirectory() as folder:
            ran = run(page, Path(folder))
            figures.draw(page.stem, ran.names, Path(folder))
        page.write_text(written(page.read_text(), ran.printed))
        print(f"{page.stem}: {len(ran.printed)} blocks")
    notebooks.write()


if __name__ == "__main__":
    main(sys.argv[1:])
