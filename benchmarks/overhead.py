"""The host's overhead around one inner gradient and one training step: tiny tensors, compared with bare PyTorch.

python -m benchmarks.overhead [--model resnet|gpt|mlp] [--rounds N] [--threads N]
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode

import hypergrad as hg
from benchmarks.measure import clocked, interleaved, ratios, timing_settings
from benchmarks.networks import GPT, resnet18
from hypergrad.core.autodiff import Tensors, leaves
from hypergrad.problem.oracle import Oracle

STEPS, LR = 5, 0.1
_NO_KERNELS = {"detach", "_unsafe_view", "_record_function_enter_new", "_record_function_exit"}
BARE, BY_HAND = "bare forward and backward()", "loop by hand, create_graph"
_console = Console(width=110, highlight=False)
Work = Callable[[], Sequence[Tensor]]


@dataclass(frozen=True)
class Model:
    """A model on one batch of random examples, by PyTorch alone and as a problem of ours; λ is the learning rate.

    Attributes:
        title: of its table.
        make: builds the module.
        inputs: draws X.
        targets: draws y.
        calls: in one timed turn.
    """

    title: str
    make: Callable[[], nn.Module]
    inputs: Callable[[], Tensor]
    targets: Callable[[], Tensor]
    calls: int = 10

    @cached_property
    def module(self) -> nn.Module:
        """The user's module."""
        torch.manual_seed(0)
        return self.make()

    @cached_property
    def batch(self) -> tuple[Tensor, Tensor]:
        """X and y."""
        torch.manual_seed(1)
        return self.inputs(), self.targets()

    @cached_property
    def dev_batch(self) -> tuple[Tensor, Tensor]:
        """Other examples, on which the dev loss is evaluated."""
        torch.manual_seed(2)
        return self.inputs(), self.targets()

    @cached_property
    def problem(self) -> hg.Supervised:
        """The same in the library."""
        return hg.Supervised(
            model=self.module,
            loss=cross_entropy,
            train=self.batch,
            dev=self.dev_batch,
            hyperparameters={"lr": hg.Hyperparameter(LR)},
        )

    def gradients(self) -> dict[str, Work]:
        """One inner gradient, by the names of the ways to it."""
        module, (X, y), problem = self.module, self.batch, self.problem
        own, w, hparams = list(module.parameters()), problem.init_params(), problem.init_hparams()
        batch = problem.inner_batch(0)

        def backward() -> Sequence[Tensor]:
            for p in own:
                p.grad = None
            cross_entropy(module(X), y).backward()
            return [p.grad for p in own if p.grad is not None]

        def with_leaves() -> Sequence[Tensor]:
            at = leaves(w)
            return torch.autograd.grad(problem.inner_loss(at, hparams, batch), tuple(at.values()))

        def functional() -> Sequence[Tensor]:
            at = leaves(w)
            return torch.autograd.grad(cross_entropy(functional_call(module, at, X), y), tuple(at.values()))

        def ours(evaluate: Callable[[Tensors], tuple[Tensor, Tensors]]) -> Work:
            def work() -> Sequence[Tensor]:
                with torch.no_grad():
                    return list(evaluate(w)[1].values())

            return work

        return {
            BARE: backward,
            "bare forward and autograd.grad": lambda: torch.autograd.grad(cross_entropy(module(X), y), own),
            "torch.func.functional_call and autograd.grad": functional,
            "problem.inner_loss and autograd.grad": with_leaves,
            "problem.inner_loss_and_gradient": ours(lambda w: problem.inner_loss_and_gradient(w, hparams, batch)),
            "Oracle": ours(Oracle(problem, hparams, batch)),
        }

    def trainings(self) -> dict[str, Work]:
        """Training in place, and dF/dλ through as many steps."""
        module, (X, y), (X_dev, y_dev), problem = self.module, self.batch, self.dev_batch, self.problem
        w, hparams, solver = problem.init_params(), problem.init_hparams(), hg.GradientDescent(lr="lr")

        def in_place() -> Sequence[Tensor]:
            with torch.no_grad():
                for name, p in module.named_parameters():
                    p.copy_(w[name])
            optimiser = torch.optim.SGD(module.parameters(), lr=LR, foreach=True)
            for _ in range(STEPS):
                optimiser.zero_grad()
                cross_entropy(module(X), y).backward()
                optimiser.step()
            end = [p.detach().clone() for p in module.parameters()]
            with torch.no_grad():
                for name, p in module.named_parameters():
                    p.copy_(w[name])
            return end

        def by_hand() -> Sequence[Tensor]:
            at, lr = leaves(w), hparams["lr"].clone().requires_grad_()
            with sdpa_kernel(SDPBackend.MATH):  # the others have no second derivative
                for _ in range(STEPS):
                    loss = cross_entropy(functional_call(module, at, X), y)
                    grads = torch.autograd.grad(loss, tuple(at.values()), create_graph=True)
                    at = {name: p - lr * g for (name, p), g in zip(at.items(), grads, strict=True)}
            return torch.autograd.grad(cross_entropy(functional_call(module, at, X_dev), y_dev), (lr,))

        def trained() -> Sequence[Tensor]:
            training = hg.Training(solver=hg.GradientDescent(lr=LR), steps=STEPS)
            return list(training.run(problem, {}, w).params.values())

        def tape(kind: hg.Tape) -> Work:
            estimator = hg.Unrolled(solver=solver, tape=kind, inner_steps=STEPS)
            return lambda: list(estimator.estimate(problem, hparams, w).grad.values())

        return {
            "torch.optim.SGD(foreach=True), in place": in_place,
            "hg.Training": trained,
            BY_HAND: by_hand,
            "Graph": tape(hg.Graph()),
            "Store": tape(hg.Store()),
        }


MODELS = {
    "resnet": Model(
        "ResNet-18 with group normalisation, width 4, 2 images of 8 × 8",
        lambda: resnet18(width=4, groups=2),
        lambda: torch.randn(2, 3, 8, 8),
        lambda: torch.randint(10, (2,)),
        calls=3,
    ),
    "gpt": Model(
        "GPT of 12 layers of width 16, 2 × 8 tokens",
        lambda: GPT(vocabulary=32, length=8, width=16, heads=2, layers=12),
        lambda: torch.randint(32, (2, 8)),
        lambda: torch.randint(32, (2, 8)),
        calls=3,
    ),
    "mlp": Model(
        "MLP 16-16-10, 8 examples",
        lambda: nn.Sequential(nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 10)),
        lambda: torch.randn(8, 16),
        lambda: torch.randint(10, (8,)),
        calls=50,
    ),
}


def saved_bytes(work: Callable[[], object]) -> int:
    """The bytes that graphs keep for backward, at most at a time: without parameters, and each memory once."""
    alive: dict[int, int] = {}
    most = now = 0

    class Kept:
        def __init__(self, x: Tensor) -> None:
            nonlocal now, most
            self.x, self.key = x, x.untyped_storage().data_ptr()
            alive[self.key] = alive.get(self.key, 0) + 1
            if alive[self.key] == 1:
                now += x.untyped_storage().nbytes()
                most = max(most, now)

        def __del__(self) -> None:
            nonlocal now
            alive[self.key] -= 1
            if alive[self.key] == 0:
                now -= self.x.untyped_storage().nbytes()

    with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.x):
        work()
    return most


class _Counting(TorchDispatchMode):
    """Counts the operations that are kernels on a GPU, and not views."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.kernels += not func.is_view and func.overloadpacket.__name__ not in _NO_KERNELS
        return func(*args, **(kwargs or {}))


def kernels(work: Work) -> int:
    """The number of kernels that would be launched on a GPU, each operation being one."""
    with _Counting() as met:
        work()
    return met.kernels


def compare(title: str, works: Mapping[str, Work], reference: str, rounds: int, calls: int) -> dict[str, float]:
    """Print the ratios to a reference, after a check that the results of the same kind agree.

    Returns:
        The ratios by name.

    Raises:
        RuntimeError: if two results differ by more than rounding.
    """
    found = {name: work() for name, work in works.items()}
    for name, result in found.items():
        other = next(x for x in found.values() if len(x) == len(result))
        error = max(((x - y).norm() / y.norm().clamp_min(1e-3)).item() for x, y in zip(result, other, strict=True))
        if error > 1e-4:
            raise RuntimeError(f"{title}: {name} is off by {error:.1e}.")
    clocks = {name: clocked(work, calls, time.process_time) for name, work in works.items()}
    times = interleaved(clocks, repeats=rounds)
    columns = ("", "× reference", "quartiles apart", "ms", "kernels", "kB saved")
    table = Table(*columns, title=title, title_justify="left")
    shown = {}
    for name, work in works.items():
        shown[name], spread = ratios(times[name], times[reference])
        milliseconds = 1e3 * statistics.median(times[name])
        counts = f"{kernels(work)}", f"{saved_bytes(work) / 1e3:.0f}"
        table.add_row(name, f"{shown[name]:.2f}", f"{spread:.2f}", f"{milliseconds:.2f}", *counts)
    _console.print(table)
    return shown


def main() -> None:
    """Print the tables that were asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.overhead", description="The host's overhead around a gradient and a training step."
    )
    parser.add_argument("--model", choices=MODELS, help="one of the models only")
    given = timing_settings(parser, rounds=11)
    for name in [given.model] if given.model else MODELS:
        model = MODELS[name]
        compare(f"one gradient: {model.title}", model.gradients(), BARE, given.rounds, model.calls)
        compare(f"{STEPS} steps: {model.title}", model.trainings(), BY_HAND, given.rounds, 1)


if __name__ == "__main__":
    main()
