"""What an experiment has measured, kept beside its README for the script that draws it."""

import json
import re
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

_HERE = Path(__file__).parent


def save(experiment: str, numbers: dict[str, Any]) -> None:
    """Write the numbers of an experiment, a list of plain values on one line."""
    text = re.sub(r'\[[^][{}"]*\]', lambda flat: " ".join(flat[0].split()), json.dumps(numbers, indent=1))
    (_HERE / experiment / "numbers.json").write_text(text + "\n")


def load(experiment: str) -> dict[str, Any]:
    """Read them."""
    return json.loads((_HERE / experiment / "numbers.json").read_text())


def draw(experiment: str, figure: Figure) -> None:
    """Write the figure of an experiment."""
    figure.savefig(_HERE / experiment / "figure.png", dpi=110)
