"""Peak bytes of a gradient and a Hessian product of a GPT of 124 million numbers, counted on tensors without data.

python -m benchmarks.gpt_bytes    # two minutes on any machine
"""

from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import cross_entropy

import hypergrad as hg
from benchmarks.networks import GPT
from benchmarks.peak import PeakBytes
from hypergrad.core.autodiff import Tensors, flatten, leaves, vjp
from hypergrad.problem.oracle import Oracle
from hypergrad.problem.supervised.examples import Batch

TEXTS, LENGTH = 8, 512
SETTINGS: tuple[dict[str, Any], ...] = (
    {},
    {"recompute": True},
    {"micro_batch": 4},
    {"recompute": True, "micro_batch": 4},
    {"recompute": True, "micro_batch": 2},
)


def problem(model: GPT, length: int, **settings: Any) -> hg.Supervised:
    """The model on two short texts, which only say what kind of data there is."""
    ids = torch.randint(model.tokens.num_embeddings, (2, length + 1))
    train, dev = (ids[:, :-1], ids[:, 1:]), (ids[:, 1:], ids[:, :-1])
    l2 = {"l2": hg.L2(init=1e-4, on="norm*")}
    return hg.Supervised(
        model=model, loss=cross_entropy, train=train, dev=dev, hyperparameters=l2, probe=False, **settings
    )


def gradient(oracle: Oracle, w: Tensors) -> None:
    """∇g without a graph; attention is by its formula, because fused kernels need tensors with data."""
    with torch.no_grad():
        oracle(w)


def product(oracle: Oracle, w: Tensors) -> None:
    """The linearization, and one product with the Hessian."""
    w = leaves(w)
    phi = flatten(oracle(w)[1])
    vjp(phi, w)(torch.empty_like(phi))


def peak(work: Any, problem: hg.Supervised, texts: int, length: int) -> int:
    """The peak of the bytes that it holds at a time, beside parameters and data."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        ids = torch.randint(9, (texts, length + 1))
        batch = Batch(torch.arange(texts), None, (ids[:, :-1], ids[:, 1:]))
        w, hp = (
            {name: torch.empty_like(x) for name, x in tensors.items()}
            for tensors in (problem.init_params(), problem.init_hparams())
        )
        with PeakBytes() as counter:
            work(Oracle(problem, hp, batch), w)
    return counter.peak


def counted(
    model: GPT, texts: int, length: int, settings_of_rows: tuple[dict[str, Any], ...] = SETTINGS
) -> list[tuple[str, int, int]]:
    """The settings as text, and the peaks of a gradient and of a product."""
    rows = []
    for settings in settings_of_rows:
        here = problem(model, 8, **settings)
        name = ", ".join(f"{key}={value}" for key, value in settings.items()) or "plain"
        rows.append((name, *(peak(work, here, texts, length) for work in (gradient, product))))
    return rows


def main() -> None:
    """Count, and print the table."""
    torch.manual_seed(0)
    table = Table("GB", "gradient", "linearize and one product")
    for name, *sizes in counted(GPT(), TEXTS, LENGTH):
        table.add_row(name, *(f"{size / 1e9:.1f}" for size in sizes))
    Console().print(table)


if __name__ == "__main__":
    main()
