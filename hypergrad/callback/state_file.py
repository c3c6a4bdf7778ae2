"""The state of a run as files: written whole or not at all; an error says what is wrong with a file."""

import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from hypergrad.callback.atomic import replacing
from hypergrad.callback.history_file import HistoryFile, read_history
from hypergrad.callback.shard_folder import FOLDER, remove
from hypergrad.callback.stacked import stacked, unstacked
from hypergrad.core.errors import CheckpointError
from hypergrad.core.placement import placed

_FORMAT, _VERSION = "hypergrad state", 3
_WITH_HISTORY = 2
"""The version whose files hold the history themselves."""
_SUM = "checksum of rows"
"""The entry with the checksum of the records in the history; earlier releases wrote none."""
_NAME = re.compile(r"state-(\d+)\.pt")


def write(history: HistoryFile, state: dict[str, Any], keep: int) -> Path:
    """Write `state-NNNNNN.pt`, named after its step, beside its history, and keep only the last `keep` files.

    The records that `history` does not hold yet are appended to it first; the state has only their number.

    A temporary file is written, forced to disk and renamed, so there is never an incomplete state file.

    Returns:
        The path of the file.

    Also raised, by what it calls: OSError if the disk is full or cannot be written; the earlier files are unchanged.
    """
    folder = history.path.parent
    path = path_of(folder, state["step"])
    history.append(state["history"], state["trajectory"])
    # On the CPU, so that it can be read on a machine without the device of the run.
    content = {key: value for key, value in state.items() if key not in ("history", "trajectory")}
    content = placed(stacked(content), "cpu")
    about = {"format": _FORMAT, "version": _VERSION, "rows": history.rows, _SUM: history.checksum}
    with replacing(path) as file, _checksums():
        torch.save(content | about, file)
    ours = [known for known in found(folder) if step_of(known) <= state["step"]]
    for known in found(folder):
        # A file of a later step remains from before the run was resumed at an earlier one.
        if known not in ours[-keep:]:
            remove(known)
    return path


def path_of(folder: Path, step: int) -> Path:
    """The state file of an outer step."""
    return folder / f"state-{step:06d}.pt"


def found(folder: Path) -> list[Path]:
    """The state files in a folder, by step."""
    return sorted((path for path in folder.glob("state-*.pt") if _NAME.fullmatch(path.name)), key=step_of)


def step_of(path: Path) -> int:
    """The outer step in the name of a state file, which has more than six digits from a million on; −1 if none."""
    match = _NAME.fullmatch(path.name)
    return int(match[1]) if match else -1


def read(source: str | Path) -> dict[str, Any]:
    """The state in a file, or in the last one of a run's folder.

    Raises:
        FileNotFoundError: if there is no state.
        CheckpointError: if it is truncated or damaged, not a state of hypergrad, or of another version; the message
            names an earlier one in the folder that can be read.
    """
    path = Path(source)
    if path.is_dir():
        states = found(path)
        if not states:
            raise FileNotFoundError(f"{path} holds no state-*.pt to go on from; is it the folder of a run?")
        path = states[-1]
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; name the folder of a run, or one of its state-*.pt.")
    try:
        return _load(path)
    except CheckpointError as error:
        earlier = [known for known in found(path.parent) if known != path and not step_of(known) > step_of(path) >= 0]
        for other in reversed(earlier):
            try:
                step = _load(other)["step"]
            except CheckpointError:
                continue
            raise CheckpointError(f"{error} The one before, of step {step}, can be read: resume={other}") from None
        raise CheckpointError(f"{error} No other state in {path.parent} can be read.") from None


@contextmanager
def _checksums() -> Iterator[None]:
    """Files with the checksums by which `_load` finds damage, also where the process has turned them off."""
    getter = getattr(torch.serialization, "get_crc32_options", lambda: True)  # they are always there before torch 2.6
    if getter():
        yield
        return
    torch.serialization.set_crc32_options(True)
    try:
        yield
    finally:
        torch.serialization.set_crc32_options(False)


def _load(path: Path) -> dict[str, Any]:
    try:
        # torch itself does not look at the checksums: a flipped bit would be another number.
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        state = torch.load(path, weights_only=True, map_location="cpu")
    except PermissionError:
        raise
    except Exception as error:  # torch raises many kinds at a file that it did not write
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:120]
        raise CheckpointError(f"{path} cannot be read: it is truncated, or no state of a run ({reason}).") from None
    if damaged is not None:
        raise CheckpointError(f"{path} is damaged: it is no longer what was written, by the checksum of {damaged}.")
    if not isinstance(state, dict) or state.get("format") != _FORMAT:
        raise CheckpointError(f"{path} is not the state of a run of hypergrad.")
    if FOLDER in state:
        state[FOLDER] = str(path.parent / state[FOLDER])
    if state.get("version") == _WITH_HISTORY:
        return state
    if state.get("version") != _VERSION:
        raise CheckpointError(
            f"{path} is of version {state.get('version')} of the format, and this hypergrad reads versions "
            f"{_WITH_HISTORY} and {_VERSION}; continue it with the hypergrad that wrote it."
        )
    history, trajectory = read_history(path.parent, state["rows"], state["hparams"], state.get(_SUM))
    return {
        **{key: unstacked(value) for key, value in state.items() if key not in ("rows", _SUM)},
        "history": history,
        "trajectory": trajectory,
    }
