"""What the ranks of a run agree on, so that all of them take the same branch of the outer loop."""

import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist

from hypergrad.core.autodiff import Tensors
from hypergrad.core.errors import HypergradError, RankError, Terminated, described
from hypergrad.core.ranks import Peers, first_to_fail

_COMPARE_EVERY = 10
"""Records between two comparisons of λ on all ranks. A judgement: a digest of many λ costs a copy to the CPU."""
_GRACE = 10.0
"""Seconds in which an evaluation that failed on one rank must have ended on the others too. A judgement."""
_LONGEST_SAVE = 600.0
"""Seconds that the other ranks wait at the end until the first has saved. A judgement."""
_FAILED = 1000
"""Above the number of every signal."""

_RUNS: Counter[str] = Counter()
"""By the name of a group, the runs of its processes so far."""

_GONE = (
    "Another rank has ended, or did not answer in time ({}). If it left no message, it was killed: the report of "
    "torchrun says how, and a want of memory is the usual reason."
)


class Agreement:
    """Decisions of a run that all of its ranks take alike; a process that is alone decides as it likes.

    Args:
        peers: the processes of the run.
        rejects: whether an evaluation that fails on all ranks is tried again elsewhere, see `Acceptance`.
    """

    def __init__(self, peers: Peers, *, rejects: bool) -> None:
        self.peers, self.rejects = peers, rejects
        self.asked = 0  # the signal that asked this rank to end
        self.is_shared = False  # whether all ranks end for a reason that all of them know
        self._known: BaseException | None = None
        if peers.group is not None:
            _RUNS[peers.group.group_name] += 1
            self._run = f" in run {_RUNS[peers.group.group_name]} of {peers.group.group_name}"

    @contextmanager
    def together(self, *, heeds: bool = True) -> Iterator[None]:
        """A block that every rank takes; an error of one, or a signal to one, ends it on all of them.

        Args:
            heeds: whether a signal does.

        Also raised, by what it calls: the error of the block, on its rank; RankError if another rank failed;
        KeyboardInterrupt or Terminated if a rank was asked to end.
        """
        if self.peers.world == 1:
            yield
            return
        try:
            yield
        except BaseException as error:
            first_to_fail(dist.get_rank(), described(error), run=self._run)
            self._conclude(_FAILED, described(error))
            raise
        self._conclude(self.asked if heeds else 0)

    def heed(self) -> None:
        """End on all ranks if one was asked to end.

        Also raised, by what it calls: KeyboardInterrupt or Terminated.
        """
        if self.peers.world > 1:
            self._conclude(self.asked)

    @contextmanager
    def evaluation(self) -> Iterator[None]:
        """An evaluation that may be rejected: it must fail on all ranks, or on none.

        Raises:
            HypergradError: of the block, on this rank.
            RankError: if it failed on another rank only.
        """
        if self.peers.world == 1 or not self.rejects:
            yield
            return
        try:
            yield
        except HypergradError as error:
            if not self.peers.agree(1, seconds=_GRACE):
                raise RankError(f"Only some ranks failed: {described(error)}") from error
            raise
        if not self.peers.agree(0):
            raise RankError("An evaluation failed on another rank, and not here.")

    def require_same(self, named: Tensors, *, record: int, step: int) -> None:
        """Compare hyperparameters on all ranks, at every tenth record.

        Args:
            named: the hyperparameters that all ranks must have.
            record: the number of the record, from 0.
            step: the outer step.

        Also raised, by what it calls: RankError if they differ.
        """
        if record % _COMPARE_EVERY == 0:
            self.peers.require_same(named, "at the start" if step == 0 else f"after outer step {step}")

    def wait(self) -> None:
        """After a reason to end that all ranks know: wait until the first has saved what was reached."""
        if self.is_shared:
            self.peers.barrier(_LONGEST_SAVE)

    def cause(self, error: BaseException) -> BaseException:
        """An error, or if another rank failed before, one that says so. The first to fail is noted."""
        if self.peers.world == 1 or error is self._known or (isinstance(error, KeyboardInterrupt) and self.is_shared):
            return error
        is_echo, here = _is_of_network(error), dist.get_rank()
        own = _GONE.format(error) if is_echo else described(error)
        rank, said = first_to_fail(here, own, run=self._run)
        if is_echo or said != own:
            error = RankError(said) if rank == here else RankError(f"Rank {rank} failed: {said}", rank)
        elif rank == here and not isinstance(error, RankError):
            error.add_note(f"This was on rank {rank} of {dist.get_world_size()}.")
        self._known = error
        return error

    def _conclude(self, level: int, failure: str = "") -> None:
        """Compare how a block ended on all ranks; nothing happens if it ended well on all, or in a failure here.

        Args:
            level: 0 if it ended well, the number of a signal, or `_FAILED`.
            failure: the error.

        Raises:
            RankError: if another rank failed, and this one did not.

        Also raised, by what it calls: KeyboardInterrupt if a rank was asked to end by SIGINT, Terminated by SIGTERM.
        """
        most = self.peers.most(level)
        if most == 0:
            return
        found = self.peers.gathered((level, failure))
        self.is_shared = True
        if level == _FAILED:
            return
        rank, said = next((i, text) for i, (one, text) in enumerate(found) if one == most)
        if most == _FAILED:
            raise RankError(f"Rank {rank} failed: {said}", rank)
        kind = Terminated if most == signal.SIGTERM else KeyboardInterrupt
        raise kind(f"Rank {rank} was asked to end ({signal.Signals(most).name}).")


def _is_of_network(error: BaseException) -> bool:
    """Whether a collective failed because another process did not take part."""
    text = str(error).lower()
    return isinstance(error, dist.DistError) or (
        type(error) is RuntimeError and any(word in text for word in ("gloo", "nccl", "connection closed"))
    )
