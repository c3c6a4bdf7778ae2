"""What an experiment has measured, kept beside its README for the script that draws it."""

import json
import re
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

_HERE = Path(__file__).parent
_INNERMOST = re.compile(r"\[[^][{}]*\]")


def save(experiment: str, numbers: dict[str, Any], name: str = "numbers") -> None:
    """Write the numbers of an experiment, a list of them on one line."""
    text = _INNERMOST.sub(lambda found: " ".join(found[0].split()), json.dumps(numbers, indent=1))
    (_HERE / experiment / f"{name}.json").write_text(text + "\n")


def load(experiment: str, name: str = "numbers") -> dict[str, Any]:
    """Read them."""
    return json.loads((_HERE / experiment / f"{name}.json").read_text())


def draw(experiment: str, figure: Figure, name: str = "figure") -> None:
    """Write a figure of an experiment."""
    figure.savefig(_HERE / experiment / f"{name}.png", dpi=110)
