"""L2 penalties that belong to the solver."""

from collections.abc import Mapping

from torch import Tensor

from hypergrad.core.autodiff import Tensors
from hypergrad.solver.all_tensors import scaled_sums


def decayed(grad: Tensors, params: Tensors, decay: Mapping[str, float | Tensor]) -> Tensors:
    """The gradient of g(w) + Σ ½ decay ‖w‖²: ∇g(w) + decay w, each named tensor with a decay of its own."""
    number = next(iter(decay.values()), 0.0)
    return grad if not isinstance(number, Tensor) and number == 0 else scaled_sums(grad, decay, params)
