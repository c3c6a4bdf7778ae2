"""Label smoothing."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import constraints

from hypergrad.core.hyperparameter import Hyperparameter
from hypergrad.core.validation import require_real
from hypergrad.effect.base import Effect, Site


@dataclass(frozen=True, kw_only=True)
class LabelSmoothing(Effect):
    """Training targets (1 − λ) e_y + λ/K instead of the class y, for a loss that accepts probabilities too.

    The loss gets targets of shape (n, K), which `torch.nn.functional.cross_entropy` accepts; (n, K, …) for classes of
    shape (n, …). Examples that it ignores stay ignored. Dev and test keep classes.

    Attributes:
        init: the initial smoothing, in (0, 1).

    Raises:
        ValueError: if init is out of its range.
        TypeError: if init is not a number.

    Source: Szegedy, Vanhoucke, Ioffe, Shlens & Wojna, "Rethinking the inception architecture for computer vision", CVPR
    (2016).
    """

    init: float = 0.1

    def __post_init__(self) -> None:
        require_real(self, "init", above=0, below=1)

    def space(self, site: Site) -> Hyperparameter:
        site.classes(self)
        return Hyperparameter(self.init, constraint=constraints.unit_interval)

    def targets(self, value: Tensor, y: Tensor, num_classes: int | None) -> Tensor:
        assert num_classes is not None  # or `space` had refused
        # Not one_hot, which reads the values of y, and so cannot be compiled. A target that is ignored may be no class.
        classes = torch.arange(num_classes, device=y.device).view(-1, *[1] * (y.ndim - 1))
        chosen = (y.unsqueeze(1) == classes).to(value.dtype)
        return (1 - value) * chosen + value / num_classes
