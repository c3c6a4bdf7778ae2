"""The public names: each once, sorted, and cheap to import."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import hypergrad

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "hypergrad"
IMPORTS = [
    node
    for node in ast.parse((PACKAGE / "__init__.py").read_text()).body
    if isinstance(node, ast.ImportFrom) and node.module != "types"
]
NAMES = [str(node.names[0].asname) for node in IMPORTS]
SLOW = (
    *("hydra", "omegaconf", "yaml", "rich", "sklearn", "scipy", "matplotlib", "tensorboard", "optuna", "sympy"),
    *("torch._dynamo", "torch._inductor", "torch.utils.tensorboard"),
)
"""What is imported where it is used."""


def test_each_name_stands_once_and_in_order():
    assert all(len(node.names) == 1 for node in IMPORTS)
    assert sorted(set(NAMES)) == NAMES


@pytest.mark.parametrize("node", IMPORTS, ids=NAMES)
def test_a_name_is_that_of_its_object(node):
    (alias,) = node.names
    assert getattr(hypergrad, alias.asname) is getattr(sys.modules[node.module], alias.name)


def test_a_star_imports_the_public_names_and_dir_lists_them():
    found = {}
    exec("from hypergrad import *", found)
    assert sorted(found.keys() - {"__builtins__"}) == NAMES == dir(hypergrad)


def test_no_name_is_that_of_a_module():
    assert not set(NAMES) & {path.stem for path in PACKAGE.glob("*")}


def test_the_import_loads_only_what_it_needs():
    code = f"import sys, hypergrad; print([name for name in {SLOW} if name in sys.modules])"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    assert subprocess.check_output([sys.executable, "-c", code], env=environment, text=True) == "[]\n"
