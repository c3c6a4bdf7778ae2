"""F2SA."""

from dataclasses import dataclass

from hypergrad.core.autodiff import Tensors, unflatten
from hypergrad.core.validation import require_instance, require_int, require_real
from hypergrad.single_loop.base import Memory, Move
from hypergrad.single_loop.penalty import PenaltyMethod
from hypergrad.single_loop.terms import Gradients, Terms


@dataclass(frozen=True, kw_only=True)
class F2SA(PenaltyMethod):
    """Fully first-order approximation: gradients at two copies of the parameters replace second derivatives.

    With the multiplier s, y minimises the penalty f + s g and z minimises g, so that y − z → −H⁻¹ ∇_w f / s and

        D_y = ∇_w g(y, λ) + ∇_w f(y, λ) / s
        D_z = ∇_w g(z, λ)
        D_λ = ∇_λ f(y, λ) + s (∇_λ g(y, λ) − ∇_λ g(z, λ))

    After each move, s grows by `growth`. At a fixed s and λ, D_λ tends to dF/dλ + O(1/s). The parameters of the run are
    y, which is trained on f too: its outer loss is below that of w*(λ), by about ∇_w fᵀ H⁻¹ ∇_w f / s.

    D_y is the gradient of the penalty over s. So one `solver` with the same coefficients fits both copies while s
    grows: with gradient descent y takes the step lr / s along the gradient of the penalty, as the paper requires, and
    lr < 2 / (L_g + L_f / s) for the largest curvatures of both losses. Without a solver, lr is 1 / L_g. A weight decay
    of gradient descent is a penalty of g for both copies.

    The terms of D_λ come from the same backward passes as the last steps of y and z, at the points where these begin;
    the paper computes them after these steps, from gradients of their own. A move costs `inner_steps` times two
    gradients of the inner loss and one of the outer loss, and no second derivative.

    The difference in D_λ is small, and is multiplied by s. With the same batch for both copies its sampling noise is
    small too; with a batch for each, the noise grows with s. Rounding errors ε of the losses become s ε ‖∇_λ g‖, which
    limits s in bfloat16, see docs/boat.md.

    Attributes:
        multiplier: s in the first move, > 0; the paper requires 2 L_f / µ or more, with µ the least curvature of g.
        growth: by which s grows after a move, ≥ 0; 0 is the penalty method of Shen & Chen.
        inner_steps: steps of y and z in a move, ≥ 1, each on a batch of its own.
        same_batch: whether y and z use the same inner batch in a step, or one each.

    Examples:
        >>> problem, estimator = hg.Ridge(hg.diabetes()), hg.SingleLoop(method=hg.F2SA(multiplier=10.0))
        >>> result = hg.fit(problem, estimator, hg.SuggestedSGD(), 200, progress=False)
        >>> print(f"dev loss {result.last.dev_loss:.2f} at λ = {result.last.hparams['l2']:.1f}")
        dev loss 0.48 at λ = 0.2

    Source: Kwon, Kwon, Wright & Nowak, "A fully first-order method for stochastic bilevel optimization", ICML (2023);
    Shen & Chen, "On penalty-based bilevel gradient descent method", ICML (2023). With AdamW and the same batch: Pan et
    al., "ScaleBiO: scalable bilevel optimization for LLM data reweighting", ACL (2025).
    """

    growth: float = 0.01
    inner_steps: int = 1
    same_batch: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_real(self, "growth", least=0)
        require_int(self, "inner_steps", least=1)
        require_instance(self, "same_batch", bool)

    @property
    def num_batches(self) -> int:
        return self.inner_steps if self.same_batch else 2 * self.inner_steps

    def begin(self, terms: Terms, params: Tensors, hparams: Tensors) -> Memory:
        z = {name: w.clone() for name, w in params.items()}
        return {"solver": self.start_solver(params), "z": z, "z_solver": self.start_solver(z)}

    def move(self, terms: Terms, params: Tensors, hparams: Tensors, memory: Memory, t: int) -> Move:
        for k in range(self.inner_steps - 1):
            params, memory, *_ = self._step(terms, params, hparams, memory, t, k)
        s, last = self.multiplier_at(t), self.inner_steps - 1
        y, memory, f, g_y, g_z = self._step(terms, params, hparams, memory, t, last)
        D_hp = terms.rows.summed(f.wrt_hparams + s * (g_y.wrt_hparams - g_z.wrt_hparams), hparams)
        return Move(y, D_hp, memory, f.loss, g_y.loss, g_y.wrt_params + f.wrt_params / s, f.wrt_params)

    def _step(
        self, terms: Terms, y: Tensors, hparams: Tensors, memory: Memory, t: int, k: int
    ) -> tuple[Tensors, Memory, Gradients, Gradients, Gradients]:
        """Step k of both copies in move t: y, the memory, and before the step f and g at y, and g at z."""
        z, (of_y, of_z) = memory["z"], (k, k) if self.same_batch else (2 * k, 2 * k + 1)
        f, g_y, g_z = terms.outer(y, hparams), terms.inner(y, hparams, of_y), terms.inner(z, hparams, of_z)
        D_y, D_z = g_y.wrt_params + f.wrt_params / self.multiplier_at(t), g_z.wrt_params
        step = t * self.inner_steps + k
        y, y_state = self.step_solver(y, memory["solver"], unflatten(D_y, y), hparams, t, solver_step=step)
        z, z_state = self.step_solver(z, memory["z_solver"], unflatten(D_z, z), hparams, t, solver_step=step)
        return y, {"solver": y_state, "z": z, "z_solver": z_state}, f, g_y, g_z

    def multiplier_at(self, t: int) -> float:
        """The multiplier s in move t."""
        return self.multiplier + self.growth * t
