"""The shape of the tree: imports point one way, each strategy has its YAML, hydra is known to few files."""

import ast
import inspect
import re
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

import hypergrad

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "hypergrad"
ORDER = [
    {"core"},
    {"compile", "taylor"},
    {"data"},
    {"task", "model", "effect", "linsolve"},
    {"problem"},
    {"product"},
    {"solver"},
    {"training"},
    {"tape", "single_loop"},
    {"estimator"},
    {"functional", "check", "sensitivity", "table", "plot"},
    {"influence", "callback"},
    {"outer"},
    {"baseline"},
    {"cli"},
    {"run", "__main__"},
]
"""A file may import from its own level and from those before it."""
LEVEL = {name: level for level, names in enumerate(ORDER) for name in names}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")
HYDRA = {
    *(
        ("cli", name)
        for name in ("building", "command", "composition", "config_files", "explain", "given", "screening")
    ),
    ("run",),
}
FAMILIES = {
    "effect",
    "task",
    "problem",
    "product",
    "solver",
    "linsolve",
    "tape",
    "single_loop",
    "estimator",
    "callback",
    "baseline",
    "influence",
}
PROMISES = {"__init__", "base"}
ELSEWHERE = {"acceptance": "outer", "distributed": "problem", "optimizer": "outer", "schedule": "solver"}
"""Groups of configs whose code has no folder of their name."""


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    here = path.relative_to(PACKAGE).with_suffix("").parts
    # A folder's command stands above the library, and nothing may import it.
    level = LEVEL["__main__" if here[-1] == "__main__" else here[0]]
    for module in imported(path):
        parts = module.split(".")
        if parts[0] == "hydra" or parts[0] == "omegaconf":
            assert here in HYDRA, f"{path} imports {module}, which only {sorted(HYDRA)} may"
        if parts[0] != "hypergrad" or len(parts) == 1:
            continue
        assert parts[-1] != "__main__", f"{path} imports {module}, which is a command"
        assert LEVEL[parts[1]] <= level, f"{path} imports {module}, which stands above it"
        if here[-1] == "base" and parts[1] == here[0] and PACKAGE.joinpath(*parts[1:]).with_suffix(".py") in STRATEGIES:
            raise AssertionError(f"{path} is a promise, and imports {module}, which keeps it")


def test_no_file_imports_itself_by_way_of_others():
    """Imports under TYPE_CHECKING and inside functions count too."""
    files = {".".join(("hypergrad", *path.relative_to(PACKAGE).with_suffix("").parts)): path for path in FILES}
    edges = {name: imported(path) & files.keys() for name, path in files.items()}
    done = set[str]()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, f"a circle of imports: {' -> '.join((*way[way.index(name) :], name))}"
        if name not in done:
            for other in sorted(edges[name]):
                visit(other, (*way, name))
            done.add(name)

    for name in edges:
        visit(name, ())


def test_only_the_entrances_lie_at_the_root():
    at_root = {path.name for path in PACKAGE.iterdir() if path.is_file()}
    assert at_root == {"__init__.py", "__main__.py", "run.py", "functional.py", "py.typed"}


@pytest.mark.parametrize("folder", sorted({path.parent for path in FILES} - {PACKAGE}), ids=lambda path: path.name)
def test_every_folder_says_what_lives_there(folder):
    said = [ast.get_docstring(ast.parse(path.read_text())) for path in folder.glob("*.py") if path.stem in PROMISES]
    assert any(text and "import" in text.lower() for text in said), f"{folder} does not say what lives there"


def named(config: str) -> list[Any]:
    """The objects of this library that a config names; it does so by their public names."""
    names = re.findall(r"_target_: hypergrad\.(\S+)", config)
    return [getattr(hypergrad, name) for name in names if hasattr(hypergrad, name)]


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*/*.yaml")), ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_a_config_stands_where_its_code_stands(path):
    config = yaml.safe_load(path.read_text())
    group = path.parent.name
    if group == "experiment" or config is None:  # the choice of nothing
        return
    if group == "callback":  # callbacks are a dict of their own, by name
        config = config[path.stem]
    if "_target_" not in config:  # a variant of another config of its group
        assert (path.parent / f"{config['defaults'][0]}.yaml").exists()
        return
    if config["_target_"].startswith("torch.optim."):
        return
    assert hasattr(hypergrad, config["_target_"].removeprefix("hypergrad.")), (
        f"{path} names {config['_target_']}, which hypergrad/__init__.py does not have; add it in its place there"
    )
    (built,) = named(f"_target_: {config['_target_']}")
    assert built.__module__.startswith(f"hypergrad.{ELSEWHERE.get(group, group)}.")
    taken = inspect.signature(built).parameters
    takes_all = any(one.kind is one.VAR_KEYWORD for one in taken.values())
    given = [key for key in config if not str(key).startswith(("_", "defaults"))]
    unknown = [key for key in given if not isinstance(key, str) or not (takes_all or key in taken)]
    assert not unknown, f"{path} sets {unknown}; YAML takes a bare on, off, yes or no for true or false"


NOT_CHOSEN = {"function_problem", "k_fold", "precision", "scope", "sparse_linear", "support"}
"""Files with members of a family that no config builds, because other code makes them."""


def module_of(path: Path) -> ModuleType:
    return import_module(".".join(("hypergrad", *path.relative_to(PACKAGE).with_suffix("").parts)))


def own_classes(path: Path) -> list[type]:
    module = module_of(path)
    return [x for x in vars(module).values() if inspect.isclass(x) and x.__module__ == module.__name__]


def keeps_a_promise(path: Path) -> bool:
    """Whether a file of a family has a class that extends what its base.py promises."""
    base = PACKAGE / path.relative_to(PACKAGE).parts[0] / "base.py"
    promises = tuple(x for x in own_classes(base) if hasattr(hypergrad, x.__name__))
    return any(
        issubclass(x, promises) and not inspect.isabstract(x) and x.__name__[0] != "_" for x in own_classes(path)
    )


STRATEGIES = [
    path
    for family in sorted(FAMILIES)
    for path in sorted((PACKAGE / family).rglob("*.py"))
    if path.stem not in PROMISES | NOT_CHOSEN | {"__main__"} and keeps_a_promise(path)
]


@pytest.mark.parametrize("path", STRATEGIES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_every_strategy_has_a_config(path):
    family, *_ = path.relative_to(PACKAGE).parts
    module = ".".join(("hypergrad", *path.relative_to(PACKAGE).with_suffix("").parts))
    groups = [family, *(group for group, place in ELSEWHERE.items() if place == family)]
    configs = [path for group in groups for path in (ROOT / "configs" / group).glob("*.yaml")]
    assert module in {built.__module__ for config in configs for built in named(config.read_text())}, (
        f"no config builds what is in {module}; add configs/{family}/{path.stem}.yaml with its public name as _target_"
    )


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "solver").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_config_of_a_solver_has_all_of_its_fields(path):
    config = yaml.safe_load(path.read_text())
    if "_target_" in config:
        (built,) = named(f"_target_: {config['_target_']}")
        coefficients = {field.name for field in fields(built) if "range" in field.metadata}
        assert coefficients <= config.keys(), f"{path} lacks {', '.join(sorted(coefficients - config.keys()))}"
