"""L2 penalties that belong to the solver."""

from collections.abc import Mapping

from torch import Tensor

from hypergrad.core.autodiff import Tensors
from hypergrad.solver.coefficient import scaled_sum


def decayed(grad: Tensors, params: Tensors, decay: Mapping[str, float | Tensor]) -> Tensors:
    """The gradient of g(w) + Σ ½ decay ‖w‖²: ∇g(w) + decay w, each named tensor with a decay of its own."""
    return {
        name: g
        if not isinstance(decay[name], Tensor) and decay[name] == 0
        else scaled_sum(g, decay[name], params[name])
        for name, g in grad.items()
    }
