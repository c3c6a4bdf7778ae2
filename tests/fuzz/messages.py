"""Whether a command behaved: its exit code, and a last message of our own that names the key and the value."""

import json
import re
from collections.abc import Callable
from pathlib import Path

from commands import call
from overrides import Case

_PYTHONS = re.compile(
    r"has no attribute|unsupported operand|not supported between|object is not|not subscriptable|not iterable|"
    r"expected str, bytes|doesn't define|int too big|Traceback|Error in call to target|modulo by zero|"
    r"must be real number|unhashable|OmegaConf|ConfigNode"
)
"""Words of Python, torch and Hydra that a message must not be made of."""
_SAYS = re.compile(
    r"must|choices|Did you mean|To append|leave|give|write|choose|name|use|add|set|allow|needs|available|is no|"
    r"Could not"
)
"""A message with a remedy, or with what was expected, has one of these words."""
_UNSEEN = ("???", "${", "'${", "[", "{", "''")
"""The beginnings of values that a message may show in another form."""


def verdict(main: Callable[[], None], case: Case, folder: Path, *further: str) -> str:
    """ "right" or "refused"; else "wrong: " and what it did."""
    try:
        done = call(main, *case.arguments, *further, cwd=folder)
    except BaseException as error:
        return f"wrong: it raised {type(error).__name__}: {error}"
    is_sweep = "-m" in case.arguments
    if list(folder.rglob("*.part")):
        return "wrong: it left an unfinished file"
    finished = [path for path in folder.rglob("summary.json") if json.loads(path.read_text())["status"] == "finished"]
    if done.returncode == 0:
        return "wrong: it must fail" if case.fails else "right"
    if not is_sweep and finished:
        return f"wrong: it finished with {done.returncode}"
    return complaint(done.stderr, case) or "refused"


def complaint(printed: str, case: Case) -> str:
    """What is wrong with the last message on standard error; "" if nothing is."""
    said = printed[printed.rfind("error: ") :].partition("\nHYDRA_FULL_ERROR")[0] if "error: " in printed else ""
    if not said:
        return f"wrong: no message in {printed!r}"
    if _PYTHONS.search(said):
        return f"wrong: not our words: {said}"
    if case.named not in said:
        return f"wrong: it does not name {case.named!r}: {said}"
    if case.value and not case.value.startswith(_UNSEEN) and not any(form in said for form in _forms(case.value)):
        return f"wrong: it does not name the value {case.value!r}: {said}"
    return "" if _SAYS.search(said) else f"wrong: no remedy: {said}"


def _forms(value: str) -> tuple[str, ...]:
    """How a message may write a value."""
    bare = value.strip("'")
    others = {"null": "None", "true": "True", "0x10": "16", "1e400": "inf", "1e-320": "e-320", "0": "0.0"}
    return bare, others.get(bare, bare), bare.capitalize()
