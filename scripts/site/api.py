"""The API reference: a page for each folder of the package that has public names."""

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

import hypergrad

ROOT = Path(__file__).parents[2]
FAMILIES = {
    "functional": "One hypergradient",
    "outer": "The outer loop",
    "problem": "Problems",
    "problem/supervised": "Supervised problems",
    "problem/sparse": "Problems with an L1 penalty",
    "problem/layers": "Problems with layers that solve",
    "problem/meta": "Meta-learning",
    "problem/variational": "Variational inference",
    "problem/distributed": "Problems on several processes",
    "effect": "Effects of hyperparameters",
    "solver": "Inner solvers",
    "estimator": "Estimators",
    "tape": "Tapes",
    "linsolve": "Linear solvers",
    "product": "Hessian products",
    "single_loop": "Single-loop methods",
    "influence": "Influence",
    "sensitivity": "Sensitivity",
    "check": "Checks",
    "callback": "Callbacks and results",
    "baseline": "Searches without gradients",
    "table": "Tables of runs",
    "model": "Models",
    "task": "Families of tasks",
    "data": "Data",
    "training": "Training",
    "taylor": "Taylor series",
    "core": "Tensors, hyperparameters, errors",
    "torch": "Constraints, from torch",
}
"""The title of each page, by the folder of the package, in order."""
MODULES = {
    str(node.names[0].asname): str(node.module)
    for node in ast.parse(Path(hypergrad.__file__).read_text()).body
    if isinstance(node, ast.ImportFrom) and node.names[0].asname in dir(hypergrad)
}
"""The module of each public name."""
MOST_LINKS = 12
"""Links to what a base promises; more would be in the way on the page of each class."""
INTRODUCTION = """Every name below is an attribute of `hypergrad`: `import hypergrad as hg`. The examples also need
`import torch`. The tests run them after `torch.set_default_dtype(torch.float64)`."""


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages to those of the site; mkdocs calls it."""
    from mkdocs.structure.files import File

    for path, markdown in pages(config.repo_url).items():
        files.append(File.generated(config, path, content=markdown))
    return files


def pages(repository: str) -> dict[str, str]:
    """The Markdown of each page, by its path on the site."""
    families: dict[str, list[str]] = {folder: [] for folder in FAMILIES}
    for name in sorted(MODULES, key=lambda name: (not _is_promise(name), name)):
        families[folder(name)].append(name)
    written = {f"api/{place}.md": _page(place, names, repository) for place, names in families.items()}
    return {"api/index.md": _index(families), **written}


def folder(name: str) -> str:
    """The folder or file of the package that has a public name, or "torch"."""
    path = MODULES[name].removeprefix("hypergrad.").split(".")
    return next(place for place in ("/".join(path[:2]), path[0]) if place in FAMILIES)


def _is_promise(name: str) -> bool:
    return MODULES[name].endswith(".base")


def _index(families: dict[str, list[str]]) -> str:
    parts = ["# API reference", INTRODUCTION]
    for place, names in families.items():
        links = ", ".join(f"[`{name}`]({place}.md#hypergrad.{name})" for name in names)
        parts.append(f"**[{FAMILIES[place]}]({place}.md)**: {links}")
    return "\n\n".join(parts)


def _page(place: str, names: list[str], repository: str) -> str:
    parts = [f"# {FAMILIES[place]}", _introduction(place)]
    for name in names:
        parts += [_described(name), *_inherited(getattr(hypergrad, name)), _defined(name, repository)]
    return "\n\n".join(part for part in parts if part)


def _introduction(place: str) -> str:
    """The first sentence of what a folder says of itself."""
    for name in ("__init__", "base"):
        path = ROOT / "hypergrad" / place / f"{name}.py"
        said = ast.get_docstring(ast.parse(path.read_text())) if path.exists() else None
        if said:
            return said.split("\n\n")[0].partition(" May import ")[0]
    return ""


def _described(name: str) -> str:
    if folder(name) != "torch":
        return f"::: hypergrad.{name}"
    said = inspect.getdoc(getattr(hypergrad, name)) or ""
    return f"## {name} {{ #hypergrad.{name} }}\n\n`{MODULES[name]}.{name}`. {said}"


def _inherited(built: Any) -> Iterator[str]:
    """What a class promises by its public bases, which is documented there alone, and has from its other bases."""
    bases = built.__mro__[1:] if inspect.isclass(built) else ()
    is_public = {base: base.__name__ in MODULES for base in bases}
    shown = {above for base in bases if is_public[base] for above in base.__mro__}
    more = []
    for base in bases:
        members = {
            name: member.__doc__.splitlines()[0]
            for name, member in vars(base).items()
            if base.__module__.startswith("hypergrad.") and name[0] != "_" and member.__doc__
            if isinstance(member, FunctionType | property | classmethod | staticmethod)
        }
        if members and is_public[base]:
            owner = f"[`{base.__name__}`][hypergrad.{base.__name__}]"
            links = ", ".join(f"[`{name}`][hypergrad.{base.__name__}.{name}]" for name in members)
            yield f"Promised by {owner}: {links if len(members) <= MOST_LINKS else 'all that is listed there'}."
        elif base not in shown:
            more += [f"    - `{name}`: {said}" for name, said in members.items()]
    if more:
        yield "\n".join(['??? note "For those who extend it, it also has"', "", *more])


def _defined(name: str, repository: str) -> str:
    path = MODULES[name].replace(".", "/") + ".py"
    return f"Code: [`{path}`]({repository}/blob/main/{path})" if folder(name) != "torch" else ""
