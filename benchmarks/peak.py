"""Peak memory of losses in batches, and of gradients and products in micro-batches, in units of one of them.

python -m benchmarks.peak
"""

import time
import weakref
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import hypergrad as hg
from benchmarks.measure import limit_threads
from hypergrad.core.autodiff import flatten, leaves
from hypergrad.problem.oracle import Oracle
from hypergrad.problem.parts import accumulated_outer_loss

DEV, TRAIN, BATCH = 60_000, 10_000, 500


class PeakBytes(TorchDispatchMode):
    """A context that counts the bytes of what operations made and nothing has freed yet, at their `peak`.

    Views of tensors from outside, such as the data, are not counted. What a kernel needs inside is not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {x.untyped_storage()._cdata for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)}
        out = func(*args, **(kwargs or {}))
        for x in tree_leaves(out):
            if isinstance(x, torch.Tensor) and x.untyped_storage()._cdata not in given:
                self._see(x.untyped_storage())
        return out

    def _see(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata not in self._known:
            self._known.add(storage._cdata)
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._forget, storage._cdata, storage.nbytes())

    def _forget(self, key: int, size: int) -> None:
        self._known.remove(key)
        self.now -= size


def peak_bytes(work: Callable[[], object]) -> int:
    """The peak of a second call: the first one may keep things."""
    work()
    with PeakBytes() as counter:
        work()
    return counter.peak


def problem(train: int, dev: int, **settings: Any) -> hg.Supervised:
    """A convolutional network on images of 28 × 28 pixels with random values."""
    generator = torch.Generator().manual_seed(0)

    def examples(size: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.rand(size, 1, 28, 28, generator=generator), torch.randint(0, 10, (size,), generator=generator)

    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 8, 5, stride=2), nn.Tanh(), nn.Conv2d(8, 16, 5, stride=2), nn.Tanh(), nn.Flatten()]
    return hg.Supervised(
        model=nn.Sequential(*layers, nn.Linear(256, 10)),
        loss=cross_entropy,
        train=examples(train),
        dev=examples(dev),
        hyperparameters={"scale": hg.InputScale(), "l2": hg.L2(init=1e-3)},
        **settings,
    )


def outer_gradients(of: hg.Supervised) -> Callable[[], object]:
    """The dev loss with ∂f/∂w and ∂f/∂λ."""
    params, hparams = of.init_params(), of.init_hparams()

    def work() -> object:
        w, hp = leaves(params), leaves(hparams)
        loss = accumulated_outer_loss(of, w, hp, None)
        return torch.autograd.grad(loss, (*w.values(), *hp.values()), allow_unused=True)

    return work


def product(of: hg.Supervised) -> Callable[[], object]:
    """∇g, and one product with the Hessian and with the mixed derivatives."""
    params, hparams = of.init_params(), of.init_hparams()
    v = flatten({name: torch.ones_like(w) for name, w in params.items()})

    def work() -> object:
        here = hg.Reverse().linearize(Oracle(of, hparams, None), params)
        return here.product(v), here.mixed(v)

    return work


def rows() -> dict[str, tuple[Callable[[], object], Callable[[], object], Callable[[], object]]]:
    """By what is computed: all at once, in batches, and one batch alone."""
    few = problem(BATCH, BATCH)
    return {
        f"dev loss of {DEV:,} images and its gradients": (
            outer_gradients(problem(BATCH, DEV)),
            outer_gradients(problem(BATCH, DEV, dev_batch_size=BATCH)),
            outer_gradients(few),
        ),
        f"∇g of {TRAIN:,} images, Hessian and mixed product": (
            product(problem(TRAIN, BATCH)),
            product(problem(TRAIN, BATCH, micro_batch=BATCH)),
            product(few),
        ),
    }


def main() -> None:
    """Measure, and print the table."""
    limit_threads(1)
    torch.set_default_dtype(torch.float32)
    table = Table(
        "", "all at once, MB", f"in parts of {BATCH}, MB", "one part alone, MB", "parts / one", "time / at once"
    )
    for name, works in rows().items():
        all_of_it, parts, one = (peak_bytes(work) / 1e6 for work in works)
        seconds = []
        for work in works[:2]:
            begin = time.process_time()
            work()
            seconds.append(time.process_time() - begin)
        ratios = (f"{parts / one:.2f}", f"{seconds[1] / seconds[0]:.2f}")
        table.add_row(name, *(f"{value:.1f}" for value in (all_of_it, parts, one)), *ratios)
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
