"""Meta-learning: parameters from which, or near which, a model learns each of many tasks."""

from collections.abc import Callable
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import vmap

from hypergrad.core.autodiff import Tensors
from hypergrad.core.hyperparameter import Hyperparameter
from hypergrad.core.seed import seed_of
from hypergrad.core.torch_internals.modules import buffers_of, set_buffers
from hypergrad.core.validation import require_int, require_real
from hypergrad.data.own_rows import OwnRows, own_rows, rows_of
from hypergrad.data.tables import Split
from hypergrad.model.criterion import Criterion
from hypergrad.model.loss_trial import try_loss
from hypergrad.model.probe import EXAMPLES
from hypergrad.model.pure_module import PureModule
from hypergrad.model.second_derivative import TwiceDifferentiable
from hypergrad.problem.base import InnerProblem
from hypergrad.task.base import TaskFamily, Tasks


class MetaLearning(InnerProblem):
    """A model that is adapted to each of a few tasks, from parameters λ that are learned over many tasks.

    g(W, λ) = Σ_i [ℓ(z(w_i, X_i), y_i) + ½ ρ ‖w_i − λ‖²] over the support sets of all tasks, each starting at w_i = λ,
    f(W) = 1/B Σ_i ℓ(z(w_i, X'_i), y'_i) over the query sets of the B tasks of the present outer step.

    The hyperparameters are λ, by the names of the parameters, and start at the parameters of the model. W stacks the
    w_i along a new first axis. The gradient of w_i depends on w_i alone, so that it is trained as it would be alone.
    After the B tasks of the step there are `test_tasks` held-out tasks, the same in every step. The dev loss does not
    use them.

    With `Unrolled` and ρ = 0 this is MAML, and with horizon 0 first-order MAML. With `Implicit` and ρ > 0 it is
    implicit MAML: φ = ∇ℓ_i + ρ (w_i − λ), so that dF/dλ = Σ_i (I + ∇²ℓ_i / ρ)⁻¹ ∂f/∂w_i at the optimum w_i, however it
    was reached. With a small ρ there may be several optima, and training decides which one is reached.

    The metrics are means over the held-out tasks: `test_loss`, `test_loss_before` (at w_i = λ), and for classes
    `test_accuracy`.

    Args:
        model: z, a module from a batch of inputs to a batch of outputs; it is not changed. See `PureModule`.
        loss: ℓ(outputs, targets); averaged if its shape is not ().
        tasks: the family that tasks are drawn from.
        tasks_per_step: B ≥ 1, new ones in each outer step.
        test_tasks: the number of held-out tasks, ≥ 0.
        proximity: ρ ≥ 0, in units of the inner loss per squared parameter.
        seed: of the tasks.

    Raises:
        ValueError: if a number is out of its range, or the model draws random numbers.
        TypeError: if an argument that must be a number is not.

    Examples:
        >>> model, loss = hg.perceptron(1, 1, hidden=(8,)), torch.nn.functional.mse_loss
        >>> problem = hg.MetaLearning(model=model, loss=loss, tasks=hg.Sinusoids(shots=5), tasks_per_step=4)
        >>> maml = hg.Unrolled(solver=hg.GradientDescent(lr=0.01), inner_steps=1)
        >>> found = maml.estimate(problem, problem.init_hparams(), problem.init_params())
        >>> found.params["0.weight"].shape, found.grad["0.weight"].shape
        (torch.Size([4, 8, 1]), torch.Size([8, 1]))

    Source: Finn, Abbeel & Levine, "Model-agnostic meta-learning for fast adaptation of deep networks", ICML (2017);
    Rajeswaran, Finn, Kakade & Levine, "Meta-learning with implicit gradients", NeurIPS (2019).
    """

    X_support: Tensor
    y_support: Tensor
    X_query: Tensor
    y_query: Tensor

    def __init__(
        self,
        *,
        model: nn.Module,
        loss: Callable[[Tensor, Tensor], Tensor],
        tasks: TaskFamily,
        tasks_per_step: int = 25,
        test_tasks: int = 0,
        proximity: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.tasks, self.seed = tasks, seed
        self.tasks_per_step, self.test_tasks, self.proximity = tasks_per_step, test_tasks, proximity
        require_int(self, "tasks_per_step", least=1)
        require_int(self, "test_tasks", least=0)
        require_real(self, "proximity", least=0)
        like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
        self.criterion = Criterion(loss).to(like)
        for name, stack in self._first_tasks(like).items():
            self.register_buffer(name, stack)
        self.model = PureModule(model, self.X_support[0][:EXAMPLES], seed)
        self._try_loss()
        self._twice = TwiceDifferentiable(self.model, self.criterion)
        if self.model.draws:
            raise ValueError(
                "MetaLearning needs a model without random numbers in training, but this one draws some, as dropout "
                "does, and they would be the same in all tasks. Call eval() on the module that draws them."
            )

    @torch.no_grad()
    def _try_loss(self) -> None:
        """Try the loss on the first task."""
        outputs = self.model(self.model.params(), self.X_support[0], None)
        names = ("support", "query")
        parts = {part: Split(*(self.get_buffer(f"{x}_{part}")[0] for x in Split._fields)) for part in names}
        try_loss(self.criterion, outputs, parts)

    def _first_tasks(self, like: Tensor) -> Tensors:
        """The tasks of outer step 0 and then the held-out ones, by name."""
        stacks = _named(self.tasks.draw(self.tasks_per_step, _generator("tasks", self.seed, 0)), like)
        if self.test_tasks == 0:
            return stacks
        generator = _generator("held-out tasks", self.seed)
        held_out = _named(self.tasks.draw(self.test_tasks, generator, held_out=True), like)
        return {name: torch.cat([x, held_out[name]]) for name, x in stacks.items()}

    def at_outer_step(self, step: int) -> "MetaLearning":
        """As promised: on the tasks of that step, which depend only on the seed and the step."""
        other = copy(self)
        drawn = self.tasks.draw(self.tasks_per_step, _generator("tasks", self.seed, step))
        stacks = {
            name: torch.cat([x, self.get_buffer(name)[self.tasks_per_step :]])
            for name, x in _named(drawn, self.X_support).items()
        }
        set_buffers(other, buffers_of(self) | stacks)
        return other

    def settings(self) -> dict[str, object]:
        return {
            "model": self.model.module,
            "loss": self.criterion.description(),
            "tasks": f"{self.tasks}, {self.tasks_per_step} per step, seed {self.seed}, proximity {self.proximity}",
        }

    def init_params(self) -> Tensors:
        num_tasks = self.tasks_per_step + self.test_tasks
        return {name: p.expand(num_tasks, *p.shape).clone() for name, p in self.model.params().items()}

    def hyperparameters(self) -> dict[str, Hyperparameter]:
        return {name: Hyperparameter(p) for name, p in self.model.params().items()}

    def initial(self, params: Tensors, hparams: Tensors) -> Tensors:
        """λ for each task; the given parameters do not matter."""
        return {name: hparams[name].expand_as(w).clone() for name, w in params.items()}

    def inner_loss(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        return self.loss_of_outputs(self.outputs(params, hparams, batch), params, hparams, batch)

    def inner_loss_and_gradient(self, params: Tensors, hparams: Tensors, batch: Any) -> tuple[Tensor, Tensors]:
        """As promised.

        Also raised, by what it calls: ValueError if the gradient is to be differentiated again, and a layer of the
        model allows no such thing.
        """
        if torch.is_grad_enabled():
            self._twice.require(self.X_support[0][:EXAMPLES], self.y_support[0][:EXAMPLES])
        return super().inner_loss_and_gradient(params, hparams, batch)

    def outputs(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        return self._evaluate(_of_tasks(params, batch), self.X_support[rows_of(batch)])

    def loss_of_outputs(self, outputs: Tensor, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        loss = self._losses(outputs, self.y_support[rows_of(batch)]).sum()
        if self.proximity > 0:
            own = _of_tasks(params, batch)
            distances = [(w - hparams[name]).square().sum() for name, w in own.items()]
            loss = loss + self.proximity / 2 * torch.stack(distances).sum()
        return loss if batch is None else batch.scale * loss

    def inner_share(self, batch: Any, rank: int, world: int) -> tuple[OwnRows, float]:
        """The tasks of a process, held-out ones too; its gradient is zero in all other tasks."""
        own = own_rows(self.tasks_per_step + self.test_tasks, rank, world)
        return own, own.share

    def outer_share(self, batch: Any, rank: int, world: int) -> tuple[OwnRows, float]:
        own = own_rows(self.tasks_per_step, rank, world)
        return own, own.share

    def outer_loss(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        step = slice(None, self.tasks_per_step) if batch is None else batch.rows
        outputs = self._evaluate({name: w[step] for name, w in params.items()}, self.X_query[step])
        return self._losses(outputs, self.y_query[step]).mean()

    def metrics(self, params: Tensors, hparams: Tensors) -> dict[str, Tensor | float]:
        if self.test_tasks == 0:
            return {}
        test = slice(self.tasks_per_step, None)
        adapted = {name: w[test] for name, w in params.items()}
        X, y = self.X_query[test], self.y_query[test]
        outputs, before = self._evaluate(adapted, X), self._evaluate(self.initial(adapted, hparams), X)
        found: dict[str, Tensor | float] = {
            "test_loss": self._losses(outputs, y).mean(),
            "test_loss_before": self._losses(before, y).mean(),
        }
        if not y.is_floating_point():
            found["test_accuracy"] = (outputs.argmax(-1) == y).double().mean()
        return found

    def _evaluate(self, params: Tensors, X: Tensor) -> Tensor:
        """The outputs of each task's model on its inputs, shape (tasks, examples, …)."""
        return vmap(lambda w, x: self.model(w, x, None))(params, X)

    def _losses(self, outputs: Tensor, y: Tensor) -> Tensor:
        """ℓ of each task, shape (tasks,)."""
        return vmap(self.criterion.value)(outputs, y)


def _of_tasks(params: Tensors, batch: OwnRows | None) -> Tensors:
    """The parameters of all tasks, or of those of one process."""
    return params if batch is None else {name: w[batch.rows] for name, w in params.items()}


def _generator(*key: object) -> torch.Generator:
    return torch.Generator().manual_seed(seed_of(*key))


def _named(tasks: Tasks, like: Tensor) -> Tensors:
    """The tensors of some tasks by name, on the device of `like`, and in its dtype unless they are integers."""
    named = {f"{x}_{part}": getattr(getattr(tasks, part), x) for part in Tasks._fields for x in Split._fields}
    return {name: x.to(like.device, like.dtype if x.is_floating_point() else x.dtype) for name, x in named.items()}
