"""How a run goes on from what it left in a folder."""

import json
from pathlib import Path
from typing import Any

from hypergrad.callback.state_file import found, read
from hypergrad.core.errors import CheckpointError
from hypergrad.outer.loop import Loop

NOTHING_KEPT = -1
"""`Run.resumed_at` of a run that begins again, because the earlier part ended before its first state."""


def resumed(loop: Loop, source: str | Path, *, begins: bool, any_world: bool) -> int | None:
    """Put a loop into a saved state, and return the outer step of that state.

    Args:
        loop: before its first step.
        source: the folder of a run, or one of its states.
        begins: whether a run without a state begins anew; then None is returned if its folder is new, and
            `NOTHING_KEPT` if an earlier part of the run reached nothing.
        any_world: whether the state may come from another number of processes.

    Raises:
        CheckpointError: if the state is beyond the planned steps.

    Also raised, by what it calls: FileNotFoundError if there is no state; CheckpointError if it belongs to another run.
    """
    chosen, agreement = None, loop.journal.agreement
    with agreement.together():
        if agreement.peers.is_first:
            chosen = _chosen(source, begins=begins)
    state = agreement.peers.first(chosen)  # by the first alone, as the folder may be on its machine
    if not isinstance(state, dict):
        return state
    loop.restore(state, any_world=any_world)
    _, last, _ = loop.journal.records()
    if last.step > loop.outer_steps:
        raise CheckpointError(
            f"The run in {source} has taken {last.step} outer steps already, more than the {loop.outer_steps} that "
            f"were asked for; ask for at least {last.step}, or resume an earlier state-NNNNNN.pt."
        )
    return last.step


def _chosen(source: str | Path, *, begins: bool) -> dict[str, Any] | int | None:
    """The state to go on from, or `NOTHING_KEPT` or None as `resumed` returns them."""
    if begins and Path(source).is_dir() and not found(Path(source)):
        return NOTHING_KEPT if _reached_nothing(Path(source)) else None
    return read(source)


def _reached_nothing(folder: Path) -> bool:
    """Whether a run in the folder was cut short before its first state, so that nothing of it has to be kept."""
    metrics, summary = folder / "metrics.jsonl", folder / "summary.json"
    if metrics.exists() and len(metrics.read_text().splitlines()) > 1:
        return False  # it had no `StateSaver`
    if summary.exists():
        return json.loads(summary.read_text()).get("status") in ("failed", "interrupted")
    return metrics.exists()
