"""Random arguments of the commands other than `hypergrad.run`: their own settings, configs, folders and files."""

import random
from collections.abc import Callable
from pathlib import Path

from overrides import STRANGE, Case, override_case

from hypergrad.baseline.__main__ import main as baseline
from hypergrad.check.__main__ import main as check
from hypergrad.influence.__main__ import main as influence
from hypergrad.plot.__main__ import main as plot
from hypergrad.table.__main__ import main as table

MAINS: dict[str, Callable[[], None]] = {
    "check": check,
    "baseline": baseline,
    "influence": influence,
    "table": table,
    "plot": plot,
}
FURTHER = {
    "check": ("estimator=ift_dense",),
    "baseline": ("method=random", "budget=1", "callback.tensorboard=null"),
    "influence": ("experiment=digits", "steps=1"),
    "table": (),
    "plot": (),
}
"""Arguments that make a call cheap; those of a case come first, and the last one counts."""
_SETTINGS = {"baseline": ("budget", "method"), "influence": ("top", "steps", "each", "groups", "table", "method")}
_NEVER = ("-m", "resume", "--cfg")
"""Of `hypergrad.run` alone, or tried elsewhere."""


def command_case(command: str, seed: int, number: int, runs: Path) -> Case:
    """One case of a command; the same for the same seed and number.

    Args:
        command: one of `MAINS`.
        seed: of all cases.
        number: of this one.
        runs: a folder with a finished run `good`, a run `bad` with a broken summary, an empty folder and a file.
    """
    draw = random.Random(f"{command} {seed} {number}")
    if command in ("table", "plot"):
        return _of_folders(command, draw, runs)
    settings = _SETTINGS.get(command, ())
    if settings and (command == "influence" or draw.randrange(2)):
        name, value = draw.choice(settings), draw.choice(STRANGE)
        others = [text for text in FURTHER[command] if not text.startswith(f"{name}=")]
        named = "" if name == "method" else name  # the config of its group is named
        return Case((*others, f"{name}={value}"), named, value)
    case, at = override_case(seed, number), number
    while case.arguments[0].startswith(_NEVER):
        at += 1000
        case = override_case(seed, at)
    return Case((*FURTHER[command], *case.arguments), case.named, case.value, case.fails)


def _of_folders(command: str, draw: random.Random, runs: Path) -> Case:
    """Folders that are runs, or are not, and a place for the results."""
    names = [draw.choice(["good", "bad", "empty", "file", "nowhere", "é∂w"]) for _ in range(draw.randrange(1, 3))]
    wrong = next((name for name in names if name != "good"), "")
    place = draw.choice(["", str(runs / "file" / "x"), str(runs / "file"), "new"])
    option = "--csv" if command == "table" else "--out"
    is_free = not place or place == "new" or (place == str(runs / "file") and command == "table")
    arguments = (*(str(runs / name) for name in names), *((option, place) if place else ()))
    return Case(arguments, wrong or ("" if is_free else place), fails=bool(wrong) or not is_free)
