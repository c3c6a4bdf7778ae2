"""Hypergradients by training the derivatives along with the parameters."""

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from hypergrad.core.autodiff import Tensors, detach, flatten, unflatten
from hypergrad.core.torch_internals.trees import tree_map
from hypergrad.core.validation import require_compile, require_instance, require_int
from hypergrad.estimator.base import HypergradEstimator, Hypergradient, add_terms
from hypergrad.estimator.differentiated_run import DifferentiatedRun
from hypergrad.estimator.rank_plan import Part, RankPlan
from hypergrad.estimator.rehearsal import Rehearsal
from hypergrad.estimator.report import UnrollingReport
from hypergrad.problem.base import InnerProblem
from hypergrad.problem.second_derivatives import require_second_derivatives
from hypergrad.solver.base import InnerSolver, State, require_differentiable, require_solver
from hypergrad.solver.coefficient import root
from hypergrad.solver.gradient_descent import GradientDescent
from hypergrad.tape.footprint import measure
from hypergrad.training.jvp_steps import JvpSteps, compile_jvp_steps, eager_seconds, jvp_step
from hypergrad.training.states import Partial, entries
from hypergrad.training.training import Training

_HINT = "it enters neither the training steps nor the outer loss."


@dataclass(frozen=True, kw_only=True)
class Forward(HypergradEstimator):
    """Forward-mode differentiation: Z_t = ∂s_t/∂λ is trained along with the state, for all entries of λ at once.

    Z_{t+1} = (∂Φ/∂s) Z_t + ∂Φ/∂λ and dF/dλ = ∂f/∂λ + Z_Tᵀ ∂f/∂s_T, the same number as `Unrolled` without a
    horizon. It keeps p + 1 states for p entries of λ, for any T, and the time of a step grows with p: for few
    hyperparameters. With warm starts each estimate begins at Z = 0, which truncates it to the steps since the last one.

    Attributes:
        solver: how the inner problem is trained; its coefficients can be hyperparameters.
        inner_steps: training steps T, ≥ 1.
        online: pass the state, its age in steps and Z to the next estimate as `carry`, instead of starting again
            (RTHO). λ is then updated every T steps during one training, whose steps are numbered on. Z mixes
            derivatives at different values of λ; it is exact as long as λ does not change. For a trainer with warm
            starts.
        compile: run several steps at a time through torch's Inductor. It requires a C++ compiler, and some ten seconds
            once for a problem. "auto" does so once it pays, see docs/compile.md. `training_remark` in the stats says
            whether it was done, or why not.

    Source: Franceschi, Donini, Frasconi & Pontil, "Forward and reverse gradient-based hyperparameter optimization",
    ICML (2017).
    """

    solver: InnerSolver = field(default_factory=GradientDescent)
    inner_steps: int = 100
    online: bool = False
    compile: bool | str = False

    def __post_init__(self) -> None:
        require_solver(self)
        require_differentiable(self, self.solver)
        require_int(self, "inner_steps", least=1)
        require_instance(self, "online", bool)
        require_compile(self)

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
        carry: Any = None,
    ) -> Hypergradient:
        require_second_derivatives(problem, "Forward")
        run = DifferentiatedRun.of(problem, self.solver, hparams, params, inner_step, self.inner_steps)
        _require_normal_products(run)
        flow = _Flow(run)
        if self.online and carry is not None:
            flow.resume(carry)
        remark = flow.compile(self.inner_steps, self.compile) if self.compile else ""
        flow.advance(self.inner_steps)
        outer = run.evaluate(flow.state, outer_step)
        return Hypergradient(
            add_terms(outer.direct, flow.indirect(outer.adjoint), _HINT),
            detach(self.solver.params(flow.state)),
            outer.outer_loss,
            training=outer.report(self.inner_steps, remark),
            unrolling=UnrollingReport(self.inner_steps * flow.width),
            carry=flow.carry() if self.online else None,
        )

    def plan(
        self, problem: InnerProblem, hparams: Tensors | None = None, params: Tensors | None = None, *, world: int = 1
    ) -> RankPlan:
        """What one estimate costs each of `world` ranks, from one eager step, as `Implicit.plan`."""
        rehearsal = Rehearsal.of(problem, hparams, params, world)
        given = rehearsal.problem, self.solver, rehearsal.hparams, rehearsal.params, 0, self.inner_steps
        run, look = rehearsal.cost(lambda: DifferentiatedRun.of(*given))
        flow = _Flow(run)
        footprint = measure(run.dynamics, flow.state, 0)
        _, step = rehearsal.cost(lambda: flow.advance(1))
        _, judge = rehearsal.cost(lambda: run.evaluate(flow.state, 0))
        parts = [
            Part("loss and gradient at the start", 1, look),
            Part("training step with its derivatives", self.inner_steps, step),
            Part("both losses at the end", 1, judge),
        ]
        memory = (flow.width + 1) * footprint.state + footprint.graph
        return RankPlan(world, parts, memory, rehearsal.itemsize)


class _Flow:
    """A state, its age in steps, and its derivatives Z: one tensor (p, *shape) for each tensor of the state."""

    def __init__(self, run: DifferentiatedRun) -> None:
        """Begin with Z₀ = ∂s₀/∂λ, which is zero unless the problem tunes its initial parameters."""
        self.run, self.dynamics, self.hparams, self.tangents = run, run.dynamics, run.dynamics.hparams, []
        self.age = 0
        flat = flatten(self.hparams)
        self.width = len(flat)
        columns = torch.eye(self.width).to(flat).split([x.numel() for x in self.hparams.values()], 1)
        self.directions = [e.reshape(len(e), *x.shape) for e, x in zip(columns, self.hparams.values(), strict=True)]
        self.used: set[str] = set()
        self.jvp_steps: JvpSteps | None = None
        with torch.enable_grad():
            start = run.start()
        self._arrive({}, start)

    def resume(self, carry: Any) -> None:
        """Go on from the `carry` of an earlier run.

        Raises:
            ValueError: if that run did not end where this one starts.
        """
        if isinstance(carry, Tensor):
            raise ValueError(
                "Online forward mode goes on from a `carry` of its own, but this one is a tensor, as an implicit "
                "estimator returns it, or as an earlier version of hypergrad kept it in the state of a run. Continue "
                "that run with the version that began it, or begin a new run."
            )
        if not self._ends_here(carry):
            raise ValueError(
                "Online forward mode goes on from the state and derivatives in `carry`, but these do not belong to the "
                f"parameters that were given, whose state has {sum(x.numel() for x in entries(self.state))} entries, "
                f"and {self.width} hyperparameters. Pass params and carry of one estimate, or carry=None."
            )
        self.state, self.tangents, self.age = carry["state"], carry["tangents"], carry["age"]
        self.used |= set(carry["used"])
        # The batches begin with the first one of this run, for any age.
        self.dynamics = replace(self.dynamics, first_step=self.run.dynamics.first_step - self.age)

    def carry(self) -> dict[str, Any]:
        """What `resume` needs."""
        return {"state": self.state, "tangents": self.tangents, "age": self.age, "used": sorted(self.used)}

    def _ends_here(self, carry: Any) -> bool:
        ours = self.carry()
        if not isinstance(carry, dict) or carry.keys() != ours.keys():
            return False
        is_alike = all(_shapes(carry[key]) == _shapes(ours[key]) for key in ("state", "tangents"))
        params = self.run.dynamics.solver.params
        return is_alike and torch.equal(flatten(params(carry["state"])), flatten(self.run.params))

    def compile(self, num_steps: int, setting: bool | str) -> str:
        """Compile the steps after the next one if possible; return the remark on that."""
        if setting == "auto":
            ledger = eager_seconds(self.dynamics, self.state, self.tangents, self.directions, self.age)
            reason = ledger.refuse(num_steps)
            if reason:
                ledger.add(num_steps)
                return reason
        steps = range(self.age + 1, self.age + num_steps)
        self.jvp_steps, remark = compile_jvp_steps(self.dynamics, self.state, self.tangents, self.directions, steps)
        return remark

    def advance(self, num_steps: int) -> None:
        """Advance the state and Z. The first step is eager, to find the hyperparameters on which the steps depend."""
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
        """Zᵀ a by name; None if neither the start nor a step depended on a hyperparameter."""
        pairs = zip(self.tangents, entries(adjoint), strict=True)
        total = torch.stack([z.reshape(self.width, a.numel()) @ a.reshape(-1) for z, a in pairs]).sum(0)
        return {name: x if name in self.used else None for name, x in unflatten(total, self.hparams).items()}

    def _arrive(self, before: State, after: State) -> None:
        self.state, self.tangents, uses = jvp_step(before, after, self.hparams, self.tangents, self.directions)
        self.used |= {name for name, is_used in uses.items() if is_used}


def _require_normal_products(run: DifferentiatedRun) -> None:
    """Require that H Z does not underflow before it is multiplied by a large learning rate that is tuned.

    Z = ∂w/∂lr is about as large as the gradient, and H at most about 1/lr.

    Raises:
        ValueError: if it does.
    """
    lr, hparams = root(run.dynamics.solver.coefficients().get("lr", 0.0)), run.dynamics.hparams
    if not isinstance(lr, str):
        return
    limits, grad_norm = torch.finfo(hparams[lr].dtype), run.begin.grad_norm
    if 0 < grad_norm < limits.tiny**0.5 / limits.eps:
        rate = hparams[lr].max().item()
        if rate > 1 / limits.eps and grad_norm / rate < limits.tiny / limits.eps:
            raise ValueError(
                f"Forward multiplies second derivatives of about 1/lr by ∂w/∂lr, which is about the inner gradient. At "
                f"{lr} = {rate:.1e} and a gradient norm of {grad_norm:.1e} the product is 0 in {hparams[lr].dtype}. "
                "Change the unit of the inner loss, use Unrolled, or compute in float64."
            )


def _shapes(content: Any) -> Any:
    return tree_map(lambda x: x.shape, content)
