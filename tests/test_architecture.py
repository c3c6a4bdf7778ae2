"""docs/architecture.md names what is there: folders, functions, files and tables."""

import ast
import re
from pathlib import Path

import pytest
from test_layers import LEVEL, PACKAGE, ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text()
FOLDERS, WALK, RECIPES = re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]
ROWS = [re.findall(r"`([^`]+)`", line)[:2] for line in WALK.splitlines() if line.startswith("| `")]
CALLS = re.findall(r"\(`([^`]+\.py)`, `([^`]+)`\)|`([^`]+\.py)` \(`([^`]+)`\)", WALK)
PATHS = sorted(
    path
    for path in set(re.findall(r"`((?:hypergrad|configs|tests|docs)/[^`]*)`", PAGE))
    if not re.search("NAME|KIND", path)
)


def defined(path: Path) -> set[str]:
    """Functions, classes and tables of a module, and the methods of its classes as Class.method."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{part.name}" for part in node.body if isinstance(part, ast.FunctionDef)}
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


def test_every_folder_is_named_in_the_order_of_imports():
    rows = [
        re.findall(r"`hypergrad/(\w+)/`", line.split("|")[1]) for line in FOLDERS.splitlines() if line.startswith("| `")
    ]
    assert {name for row in rows for name in row} == {
        path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()
    }
    levels = [[LEVEL[name] for name in row] for row in rows]
    assert all(len(set(row)) == 1 for row in levels)
    assert levels == sorted(levels)


@pytest.mark.parametrize("path", PATHS)
def test_what_is_named_exists(path):
    assert (ROOT / path).exists()


@pytest.mark.parametrize(("path", "name"), [*ROWS, *([a or c, b or d] for a, b, c, d in CALLS)])
def test_every_function_of_the_walk_exists(path, name):
    assert name in defined(ROOT / path)


@pytest.mark.parametrize(
    ("path", "table"),
    [
        ("tests/solver/test_solver.py", "UPDATES"),
        ("tests/runs.py", "SOLVERS"),
        ("tests/estimator/test_estimator.py", "ESTIMATORS"),
        ("tests/problem/supervised/test_supervised.py", "EFFECTS"),
        ("tests/tables.py", "PROBLEMS"),
    ],
)
def test_every_table_of_the_recipes_exists(path, table):
    assert f"`{path}`" in RECIPES
    assert f"`{table}`" in RECIPES
    assert table in defined(ROOT / path)
