"""What all ranks that share a problem must hold alike before they sum anything."""

import re
from contextlib import suppress

import torch
from torch import Tensor

from hypergrad.core.ranks import Peers
from hypergrad.data.streamed import StreamedPart
from hypergrad.problem.base import InnerProblem

_OF_PROCESS = re.compile(r" at 0x[0-9a-f]+|(?<=cuda):\d+")
"""What the text of a setting has of one process: addresses, and the number of a GPU."""


def require_same_start(problem: InnerProblem, peers: Peers, name: str) -> None:
    """Require that all ranks hold the same data, settings, initial parameters and hyperparameters.

    Data in memory, and the first examples of streams, are compared by a digest, with one message to the others.

    Args:
        problem: before it is shared.
        peers: who share it.
        name: of what shares it, for the message.

    Also raised, by what it calls: RankError on all ranks, if they differ.
    """
    if peers.world == 1:
        return
    when, start = f"where hg.{name} was made", _start(problem)
    peers.require_same({"the list of what a problem holds": _text(", ".join(start))}, when)
    peers.require_same(start, when)


def _start(problem: InnerProblem) -> dict[str, Tensor]:
    """What is compared, by its name in the message."""
    sizes: dict[str, Tensor] = {}
    for part in problem.modules():
        if isinstance(part, StreamedPart):
            with suppress(ValueError):  # not known of an iterable
                sizes[f"the length of {part.name}"] = torch.tensor([part.size()])
    return {
        **{f"the setting {key}": _text(str(x)) for key, x in problem.settings().items()},
        **sizes,
        **{f"the data {key}": x for key, x in problem.named_buffers()},
        **{f"the hyperparameter {key}": x for key, x in problem.init_hparams().items()},
        **{f"the parameter {key}": x for key, x in problem.init_params().items()},
    }


def _text(text: str) -> Tensor:
    return torch.tensor(list(_OF_PROCESS.sub("", text).encode()), dtype=torch.uint8)
