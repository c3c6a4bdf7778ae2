"""MA-SOBA."""

from dataclasses import dataclass, replace

import torch

from hypergrad.core.autodiff import Tensors, flatten
from hypergrad.core.validation import require_real
from hypergrad.single_loop.base import Memory
from hypergrad.single_loop.direction_rows import MapRows
from hypergrad.single_loop.joint import Directions, JointMethod, sampled
from hypergrad.single_loop.terms import Terms


@dataclass(frozen=True, kw_only=True)
class MASOBA(JointMethod):
    """SOBA with a moving average of the direction of λ: h ← (1 − averaging) h + averaging D_λ, from h = 0.

    λ moves along h, after it has taken in the direction of this move.

    Attributes:
        averaging: the weight of the newest direction, > 0 and ≤ 1; 1 is SOBA.

    Source: Chen, Xiao & Balasubramanian, "Optimal algorithms for stochastic bilevel optimization under relaxed
    smoothness conditions", JMLR (2024).
    """

    averaging: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        require_real(self, "averaging", above=0, most=1)

    def begin_directions(self, terms: Terms, params: Tensors, hparams: Tensors) -> Memory:
        return {"average": torch.zeros_like(flatten(terms.rows.kept(hparams)))}

    def map_rows(self, memory: Memory, function: MapRows) -> Memory:
        return memory | {"average": function(memory["average"])}

    def directions(self, terms: Terms, params: Tensors, hparams: Tensors, memory: Memory) -> tuple[Directions, Memory]:
        D = sampled(terms, params, hparams, memory["v"])
        average = memory["average"] + self.averaging * (D.hp - memory["average"])
        return replace(D, hp=average), {"average": average}
