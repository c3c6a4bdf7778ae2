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

import hypergrad

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
    title = f"{path.parent.relative_to(CONFIGS).as_posix()}={path.stem}" if "/" in place else "Keys of no group"
    top = takewhile(lambda line: line.startswith("#"), text.splitlines())
    lines = [line.lstrip("# ") for line in top if not line.startswith("# @package")]
    comment = " ".join(lines).replace("_target_", r"\_target\_")  # which Markdown would make italic
    file = f"File: [`configs/{place}.yaml`]({repository}/blob/main/configs/{place}.yaml)"
    return "\n\n".join(filter(None, [f"## {title}", comment, "\n".join(items(path)), file]))


def items(path: Path) -> Iterator[str]:
    """A list item for each key of a YAML file, with its default and its meaning."""
    for key, value, meaning in keys(path):
        *above, name = key.split(".")
        default = f" = `{value}`" if value else ""
        yield f"{'    ' * len(above)}- `{name}`{default}" + (f": {meaning}" if meaning else "")


@cache
def keys(path: Path) -> tuple[tuple[str, str, str], ...]:
    """(dotted key, default, meaning) of each key of a YAML file."""
    text = path.read_text()
    node = yaml.compose(text)
    return tuple(_keys(node, text.splitlines(), "", _composed(path))) if node else ()


def _composed(path: Path) -> dict[str, str]:
    """The meanings of the dotted keys that a file changes in what it is composed of."""
    defaults = (yaml.safe_load(path.read_text()) or {}).get("defaults", [])
    parts = [(path.with_name(f"{one}.yaml"), "") for one in defaults if isinstance(one, str)]
    if path.parent.name == "experiment":
        parts.append((CONFIGS / "config.yaml", ""))
        defaults = [*yaml.safe_load(parts[-1][0].read_text())["defaults"], *defaults]
    groups = [item for one in defaults if isinstance(one, dict) for item in one.items()]
    for group, option in groups:
        group = group.removeprefix("override").strip(" /")
        parts += (
            [(CONFIGS / group / f"{option}.yaml", f"{group}.")]
            if isinstance(option, str) and group != "experiment"
            else []
        )
    found = {}
    for part, above in parts:
        if part.exists() and part != path:
            found |= {f"{above}{key}": meaning for key, _, meaning in keys(part)}
    return found


def _keys(node: Any, lines: list[str], above: str, composed: dict[str, str]) -> Iterator[tuple[str, str, str]]:
    targets = [value.value for key, value in node.value if key.value == "_target_"]
    known = meanings(targets[0]) if targets else {}
    for key, value in node.value:
        name = f"{above}{key.value}"
        said = known.get(key.value) or composed.get(name, "")
        comment = _comment(lines, key.start_mark.line)
        is_nested = isinstance(value, yaml.MappingNode) and bool(value.value)
        yield name, "" if is_nested else _flow(value), _meaning(key, value) or _joined(said, comment)
        if is_nested:
            yield from _keys(value, lines, f"{name}.", composed)


def _meaning(key: Any, value: Any) -> str:
    """The meaning of a key of Hydra's own, else ""."""
    if key.value == "_target_":
        name = value.value
        is_public = hasattr(hypergrad, name.removeprefix("hypergrad."))
        return f"what is built, [{name}][]" if is_public else "what is built"
    own = {
        "_partial_": "more arguments are given later",
        "defaults": "what it is composed of",
        "_convert_": "what lists and dicts become",
    }
    return own.get(key.value, "")


def _joined(said: str, comment: str) -> str:
    """What a docstring says, and then the comment in the YAML."""
    if not said or not comment or comment.lower() in said.lower():
        return said or comment
    return f"{said} {comment[0].upper()}{comment[1:]}" if said.endswith(".") else f"{said}; {comment}"


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
    return " ".join([*found, *([after[1]] if after else [])]).replace("*", "\\*")


@cache
def meanings(target: str) -> dict[str, str]:
    """What the docstrings of a function or class, and of its bases, say of each argument."""
    module, _, name = target.rpartition(".")
    built = getattr(import_module(module), name)
    found: dict[str, str] = {}
    for owner in built.__mro__[:-1] if inspect.isclass(built) else (built,):
        for text in (owner.__doc__, vars(owner).get("__init__", owner).__doc__):
            found = {**arguments(inspect.cleandoc(text or "")), **found}
    passed_on = re.match(r"of `(\w+)`", found.get("settings", ""))
    return {**meanings(f"{built.__module__}.{passed_on[1]}"), **found} if passed_on else found


def arguments(docstring: str) -> dict[str, str]:
    """The entries of the sections Args and Attributes."""
    sections = re.findall(r"^(?:Args|Attributes):\n((?:[ ]{4}.*\n?|\n)+)", docstring, flags=re.MULTILINE)
    entries = re.findall(
        r"^[ ]{4}(\w+)(?: \([^)]*\))?: ((?:.*\n?)(?:[ ]{5,}.*\n?)*)", "\n".join(sections), re.MULTILINE
    )
    return {name: " ".join(text.split()) for name, text in entries}
