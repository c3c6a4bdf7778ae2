"""scipy's L-BFGS-B as a torch optimiser, for the outer loop."""

import copy
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer


class LBFGSB(Optimizer):
    """Quasi-Newton with a line search and bounds; one `step` is one iteration. For deterministic losses.

    scipy's routine does not expose its memory. So each step runs it again from the first point, for one more iteration,
    on the losses and gradients that are already known; only the last iteration evaluates new ones. That costs
    O(memory · n) arithmetic for each repeated iteration and keeps every point that was tried, but the state can be
    saved.

    Args:
        params: the tensors to optimise, of any shapes.
        memory: pairs of steps and gradient differences that model the curvature, ≥ 1.
        bound: each value stays within ± this, > 0.

    Raises:
        ValueError: if `memory` or `bound` is out of range.

    Source: Byrd, Lu, Nocedal & Zhu, "A limited memory algorithm for bound constrained optimization", SIAM J. Scientific
    Computing (1995).
    """

    def __init__(self, params: Iterable[Tensor], memory: int = 10, bound: float = 30.0) -> None:
        if memory < 1 or not bound > 0:
            raise ValueError(f"LBFGSB needs memory ≥ 1 and bound > 0, but they are {memory} and {bound:g}.")
        super().__init__(params, {"memory": memory, "bound": bound})
        self._params = [p for group in self.param_groups for p in group["params"]]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go back to a state.

        The points are float64 on the CPU, as scipy needs them; torch would give them the dtype and device of u.
        """
        super().load_state_dict(state_dict)
        if state_dict["state"]:
            self.state[self._params[0]] = copy.deepcopy(state_dict["state"][0])

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One iteration.

        Args:
            closure: evaluates the loss at the current values and writes the gradients to `.grad`; they are already
                there before the first call of a step.

        Returns:
            The loss at the values before the step.

        Raises:
            ValueError: if there is no closure.
        """
        if closure is None:
            raise ValueError("LBFGSB needs a closure that evaluates the loss again.")
        kept: dict[str, Any] = self.state[self._params[0]]
        kept.setdefault("iterations", 0)
        kept.setdefault("tried", [])
        here = self._here(closure)
        if not kept["tried"]:
            kept["tried"].append(here)
        kept["iterations"] += 1
        self._place(self._minimised(kept, closure))
        return here[1]

    def _minimised(self, kept: dict[str, Any], closure: Callable[[], float]) -> Tensor:
        """Where scipy's routine gets from the first point in `kept["iterations"]` iterations, shape (n,)."""
        from scipy.optimize import minimize

        known = {_key(u): (loss, grad) for u, loss, grad in kept["tried"]}

        def evaluate(x: np.ndarray) -> tuple[float, np.ndarray]:
            u = torch.from_numpy(x.copy())
            if _key(u) not in known:
                self._place(u)
                known[_key(u)] = self._here(closure)[1:]
                kept["tried"].append((u, *known[_key(u)]))
            loss, grad = known[_key(u)]
            return loss, grad.numpy()

        bound, start = self.defaults["bound"], kept["tried"][0][0].numpy()
        options = {"maxiter": kept["iterations"], "maxcor": self.defaults["memory"], "ftol": 0.0, "gtol": 1e-12}
        bounds = [(-bound, bound)] * len(start)
        return torch.from_numpy(
            minimize(evaluate, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x
        )

    def _here(self, closure: Callable[[], float]) -> tuple[Tensor, float, Tensor]:
        with torch.enable_grad():
            loss = float(closure())
        u = torch.cat([p.detach().reshape(-1) for p in self._params]).double().cpu()
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in self._params]
        return u, loss, torch.cat([g.reshape(-1) for g in grads]).double().cpu()

    def _place(self, flat: Tensor) -> None:
        for p, piece in zip(self._params, flat.split([p.numel() for p in self._params]), strict=True):
            p.copy_(piece.view_as(p))


def _key(u: Tensor) -> bytes:
    return u.numpy().tobytes()
