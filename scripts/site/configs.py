"""The reference of configs: every group and option of configs/, with its keys and what they mean."""

import inspect
import re
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml

CONFIGS = Path(__file__).parents[2] / "configs"
GROUPS = {
    "experiment": "A run that is ready to start; its keys are those of the other groups.",
    "problem": "What is tuned.",
    "data": "The examples of a problem, as train, dev and test parts.",
    "task": "A family of tasks, for meta-learning.",
    "effect": "What a hyperparameter changes in `problem=supervised`.",
    "estimator": "How the hypergradient is formed.",
    "solver": "How the inner problem is trained.",
    "schedule": "A coefficient of the solver that changes from step to step.",
    "linsolve": "How the adjoint system is solved.",
    "product": "How products with the Hessian are formed.",
    "tape": "How a training run is visited backwards.",
    "single_loop": "The method of `estimator=single_loop`.",
    "optimizer": "How the hyperparameters move.",
    "scheduler": "The learning rate of the optimiser of the hyperparameters.",
    "acceptance": "Which outer steps are taken back.",
    "distributed": "How processes share a problem, under torchrun.",
    "callback": "What happens around an outer step.",
    "baseline": "The search of `python -m hypergrad.baseline`, as `method=NAME`.",
    "influence": "The method of `python -m hypergrad.influence`, as `method=NAME`.",
    "sensitivity": "How the optimum moves.",
    "hydra/launcher": "How the runs of a sweep are started.",
}
"""What each group chooses, in order."""
SAID = {"_target_": "what is built", "_partial_": "more arguments are given later", "defaults": "what this extends"}
INTRODUCTION = """A run is composed of one option of each group, as in
`python -m hypergrad.run experiment=digits estimator=unrolled solver=momentum solver.lr=0.02`. Below are the groups with
their options, and then the keys that belong to no group."""


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages to those of the site; mkdocs calls it."""
    from mkdocs.structure.files import File

    for path, markdown in pages(config.repo_url).items():
        files.append(File.generated(config, path, content=markdown))
    return files


def pages(repository: str) -> dict[str, str]:
    """The Markdown of each page, by its path on the site."""
    written = {}
    for group, said in GROUPS.items():
        options = [_option(path, repository) for path in sorted((CONFIGS / group).glob("*.yaml"))]
        written[f"configs/{group.replace('/', '_')}.md"] = "\n\n".join([f"# {group}", said, *options])
    return {"configs/index.md": _index(repository), **written}


def _index(repository: str) -> str:
    groups = [
        f"- [`{group}`]({group.replace('/', '_')}.md): {said} "
        + ", ".join(f"`{path.stem}`" for path in sorted((CONFIGS / group).glob("*.yaml")))
        for group, said in GROUPS.items()
    ]
    return "\n\n".join(["# Configs", INTRODUCTION, "\n".join(groups), _option(CONFIGS / "config.yaml", repository)])


def _option(path: Path, repository: str) -> str:
    """The section of one YAML file."""
    text = path.read_text()
    place = path.relative_to(CONFIGS).with_suffix("").as_posix()
    title = f"{path.relative_to(CONFIGS).parent.as_posix()}={path.stem}" if "/" in place else "The primary config"
    comment = " ".join(line.lstrip("# ") for line in _top(text) if not line.startswith("# @package"))
    file = f"[`configs/{place}.yaml`]({repository}/blob/main/configs/{place}.yaml)"
    return "\n\n".join(filter(None, [f"## {title}", comment, f"In {file}.", "\n".join(keys(text))]))


def _top(text: str) -> list[str]:
    """The comment at the top of a file."""
    return list(takewhile(lambda line: line.startswith("#"), text.splitlines()))


def keys(text: str) -> Iterator[str]:
    """A list item for each key of a YAML file, with its default and its meaning."""
    for key, value, meaning in described(text):
        default = f" = `{value}`" if value else ""
        yield f"{'    ' * key.count('.')}- `{key}`{default}" + (f": {meaning}" if meaning else "")


def described(text: str) -> Iterator[tuple[str, str, str]]:
    """(dotted key, default, meaning) of each key of a YAML file."""
    node = yaml.compose(text)
    if node is not None:
        yield from _described(node, text.splitlines(), "", {})


def _described(node: Any, lines: list[str], above: str, known: dict[str, str]) -> Iterator[tuple[str, str, str]]:
    entries = {key.value: value for key, value in node.value}
    target = entries["_target_"].value if "_target_" in entries else ""
    known = meanings(target) if target else known
    for key, value in node.value:
        name = f"{above}{key.value}"
        comment = _comment(lines, key.start_mark.line)
        said = SAID.get(key.value) or "; ".join(filter(None, [known.get(key.value, ""), comment]))
        inside = isinstance(value, yaml.MappingNode) and value.value
        yield name, "" if inside else _flow(value), said
        if inside:
            yield from _described(value, lines, f"{name}.", {})


def _flow(node: Any) -> str:
    """A value of YAML on one line."""
    if isinstance(node, yaml.SequenceNode):
        return f"[{', '.join(map(_flow, node.value))}]"
    if isinstance(node, yaml.MappingNode):
        return f"{{{', '.join(f'{_flow(key)}: {_flow(value)}' for key, value in node.value)}}}"
    return f'"{node.value}"' if node.style else node.value


def _comment(lines: list[str], at: int) -> str:
    """The comment on a line, with those that stand on lines of their own just above it."""
    first = at
    while first > 0 and lines[first - 1].lstrip().startswith("#") and lines[first - 1][:1] == " ":
        first -= 1
    found = [line.strip().lstrip("# ") for line in lines[first:at]]
    after = re.search(r"\s# ?(.*)$", lines[at])
    return " ".join([*found, *([after[1]] if after else [])])


@cache
def meanings(target: str) -> dict[str, str]:
    """What the docstrings of a function or class, and of its bases, say of each argument."""
    module, _, name = target.rpartition(".")
    built = getattr(import_module(module), name)
    found: dict[str, str] = {}
    for owner in built.__mro__[:-1] if inspect.isclass(built) else (built,):
        for text in (owner.__doc__, vars(owner).get("__init__", owner).__doc__):
            found = {**arguments(inspect.cleandoc(text or "")), **found}
    return found


def arguments(docstring: str) -> dict[str, str]:
    """The entries of the sections Args and Attributes."""
    sections = re.findall(r"^(?:Args|Attributes):\n((?:[ ]{4}.*\n?|\n)+)", docstring, flags=re.MULTILINE)
    entries = re.findall(
        r"^[ ]{4}(\w+)(?: \([^)]*\))?: ((?:.*\n?)(?:[ ]{5,}.*\n?)*)", "\n".join(sections), re.MULTILINE
    )
    return {name: " ".join(text.split()) for name, text in entries}
