"""Hypergradients by pushing derivatives along with training."""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from hypergrad.core.autodiff import Tensors, detach, flatten, unflatten
from hypergrad.core.validation import require_instance, require_int
from hypergrad.estimator.base import HypergradEstimator, Hypergradient, add_terms
from hypergrad.estimator.differentiated_run import DifferentiatedRun
from hypergrad.problem.base import InnerProblem
from hypergrad.solver.base import InnerSolver, State, require_differentiable
from hypergrad.solver.gradient_descent import GradientDescent
from hypergrad.training.jvp_steps import JvpSteps, compile_jvp_steps, jvp_step
from hypergrad.training.states import Partial, entries
from hypergrad.training.training import Training


@dataclass(frozen=True, kw_only=True)
class Forward(HypergradEstimator):
    """Forward-mode differentiation: Z_t = ∂s_t/∂λ is trained along with the state, for all entries of λ at once.

    Z_{t+1} = (∂Φ/∂s) Z_t + ∂Φ/∂λ and dF/dλ = ∂f/∂λ + Z_Tᵀ ∂f/∂s_T, the same number that `Unrolled` finds without a
    horizon. Memory is flat in T, p + 1 states for p entries of λ, and the time of a step grows with p: for few
    hyperparameters. With warm starts each estimate begins at Z = 0, which truncates it to the steps since the last one.

    Attributes:
        solver: how the inner problem is trained; its coefficients can be hyperparameters.
        inner_steps: training steps T, ≥ 1.
        online: take the state and Z along into the next estimate instead of starting anew (RTHO): λ is updated every T
            steps while one training goes on, whose steps are counted on. Z then mixes the derivatives at the values
            that λ went through, which is exact as long as λ rests. For a trainer with warm starts.
        compile: run several steps at a time through torch.compile, which takes some ten seconds once for a problem and
            a C++ compiler; `training_remark` in the stats says whether that was done, or why not.

    Source: Franceschi, Donini, Frasconi & Pontil, "Forward and reverse gradient-based hyperparameter optimization",
    ICML (2017).
    """

    solver: InnerSolver = field(default_factory=GradientDescent)
    inner_steps: int = 100
    online: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        require_instance(self, "solver", InnerSolver)
        require_differentiable(self, self.solver)
        require_int(self, "inner_steps", least=1)
        require_instance(self, "online", bool)
        require_instance(self, "compile", bool)

    @property
    def training(self) -> Training:
        return Training(solver=self.solver, steps=self.inner_steps, compile=self.compile)

    def estimate(
        self,
        problem: InnerProblem,
        hparams: Tensors,
        params: Tensors,
        *,
        outer_step: int = 0,
        inner_step: int = 0,
        adjoint: Tensor | None = None,
    ) -> Hypergradient:
        run = DifferentiatedRun.of(problem, self.solver, hparams, params, inner_step, self.inner_steps)
        flow = _Flow(run)
        if self.online and adjoint is not None:
            flow.resume(adjoint)
        remark = flow.compile(self.inner_steps) if self.compile else ""
        flow.advance(self.inner_steps)
        judged = run.evaluate(flow.state, outer_step)
        hint = "it enters neither the training steps nor the outer loss."
        return Hypergradient(
            grad=add_terms(judged.direct, flow.indirect(judged.adjoint), hint),
            params=detach(self.solver.params(flow.state)),
            outer_loss=judged.outer_loss,
            stats=judged.stats(self.inner_steps)
            | {"num_matvecs": self.inner_steps * flow.width, "training_remark": remark},
            adjoint=flow.packed() if self.online else None,
        )


class _Flow:
    """A state, its age in steps, and its derivatives Z: one tensor (p, *shape) for each of the state's."""

    def __init__(self, run: DifferentiatedRun) -> None:
        """Begin where Z₀ = ∂s₀/∂λ, which is zero unless the problem tunes its initial parameters."""
        self.run, self.dynamics, self.hparams, self.tangents = run, run.dynamics, run.dynamics.hparams, []
        self.age = 0
        flat = flatten(self.hparams)
        self.width = len(flat)
        columns = torch.eye(self.width).to(flat).split([x.numel() for x in self.hparams.values()], 1)
        self.directions = [e.reshape(-1, *x.shape) for e, x in zip(columns, self.hparams.values(), strict=True)]
        self.used: set[str] = set()
        self.jvp_steps: JvpSteps | None = None
        with torch.enable_grad():
            start = run.start()
        self._arrive({}, start)

    def resume(self, packed: Tensor) -> None:
        """Go on from what `packed` gave at the end of an earlier run.

        Raises:
            ValueError: if that run did not end where this one starts.
        """
        like = entries(self.state)
        sizes = [x.numel() for x in like]
        if packed.shape == (self.width + 1, sum(sizes) + 1):
            *rows, age = packed.split([*sizes, 1], 1)
            self.age = int(age[0].item())
            # the batches go on from where this run starts, whatever the age
            self.dynamics = replace(self.dynamics, first_step=self.run.dynamics.first_step - self.age)
            values = iter(row[0].view_as(x).to(x.dtype) for row, x in zip(rows, like, strict=True))
            self.state = {group: {name: next(values) for name in tensors} for group, tensors in self.state.items()}
            self.tangents = [row[1:].reshape(-1, *x.shape) for row, x in zip(rows, like, strict=True)]
            moving = packed[1:].any(1).to(packed)
            self.used |= {name for name, x in unflatten(moving, self.hparams).items() if x.any()}
            if torch.equal(flatten(self.run.dynamics.solver.params(self.state)), flatten(self.run.params)):
                return
        raise ValueError(
            f"Online forward mode goes on from the state and derivatives in `adjoint`, but this one, of shape "
            f"{tuple(packed.shape)}, does not belong to the parameters that were given, whose state has {sum(sizes)} "
            f"entries, and {self.width} hyperparameters. Pass params and adjoint of one estimate, or adjoint=None."
        )

    def packed(self) -> Tensor:
        """The state, Z and the age in one tensor (1 + p, n + 1)."""
        rows = zip(entries(self.state), self.tangents, strict=True)
        columns = [torch.cat([x[None].to(z), z]).reshape(self.width + 1, -1) for x, z in rows]
        age = torch.zeros_like(columns[0][:, :1])
        age[0] = self.age
        return torch.cat([*columns, age], 1)

    def compile(self, num_steps: int) -> str:
        """Compile the steps to come but the first, where that can be done, and say what came of it."""
        steps = range(self.age + 1, self.age + num_steps)
        self.jvp_steps, remark = compile_jvp_steps(self.dynamics, self.state, self.tangents, self.directions, steps)
        return remark

    def advance(self, num_steps: int) -> None:
        """Steps of the state and of Z: the first one as it is, which tells what depends on which hyperparameter."""
        stop = self.age + num_steps
        while self.age < stop:
            piece = range(self.age, min(self.age + self.jvp_steps.length, stop)) if self.jvp_steps else range(0)
            if self.jvp_steps and self.age > stop - num_steps and self.jvp_steps.fits(self.dynamics, piece):
                self.state, self.tangents = self.jvp_steps.over(self.dynamics, self.state, self.tangents, piece)
                self.age += len(piece)
            else:
                stretch = self.dynamics.linearize(self.state, self.age)
                self.age += 1
                self._arrive(stretch.before, stretch.after)

    def indirect(self, adjoint: State) -> Partial:
        """Zᵀ a by name, None where neither the start nor a step depended on a hyperparameter."""
        pairs = zip(self.tangents, entries(adjoint), strict=True)
        total = torch.stack([z.reshape(self.width, -1) @ a.reshape(-1) for z, a in pairs]).sum(0)
        return {name: x if name in self.used else None for name, x in unflatten(total, self.hparams).items()}

    def _arrive(self, before: State, after: State) -> None:
        self.state, self.tangents, uses = jvp_step(before, after, self.hparams, self.tangents, self.directions)
        self.used |= {name for name, is_used in uses.items() if is_used}
