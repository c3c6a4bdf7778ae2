"""What a rank keeps and sends for large hyperparameters, whole on each rank or spread over them.

python -m torch.distributed.run --standalone --nproc-per-node=P -m benchmarks.sharded [--examples N] [--features D]
"""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils._pytree import tree_leaves

import hypergrad as hg
from hypergrad.core import row_shard
from hypergrad.core.row_shard import Rows

_INNER_STEPS = 10
_LONG = 5
"""Outer steps of the longer of two runs, by which a step between two records is known."""


def problem(examples: int, features: int) -> hg.Supervised:
    """Softmax regression with a weight for each train example and a penalty for each of 10 (d + 1) parameters."""
    generator = torch.Generator().manual_seed(0)
    X, y = torch.randn(examples + 20, features, generator=generator), torch.arange(examples + 20) % 10
    return hg.Supervised(
        model=torch.nn.Linear(features, 10),
        loss=torch.nn.functional.cross_entropy,
        train=(X[:examples], y[:examples]),
        dev=(X[examples:], y[examples:]),
        hyperparameters={"weights": hg.ExampleWeights(), "l2": hg.L2(init=1e-3, per="weight")},
    )


class Kept(hg.Callback):
    """The bytes of a rank in λ, its gradient, Adam's moments and the records, at the last state."""

    def on_state(self, step: int, state: dict[str, Any]) -> None:
        parts = {
            "λ, dF/dλ": (state["u"], state["grad"]),
            "optimiser": state["optimizer"]["state"],
            "records": [(one["hparams"], one["grad"]) for one in state["records"]],
        }
        self.bytes = {name: _bytes(part) for name, part in parts.items()}


@contextmanager
def counting(sent: dict[str, int]) -> Iterator[None]:
    """Count the numbers that a rank sends in a ring within the context: 2 (P − 1) / P n for an all-reduce of n."""
    share, reduce = (dist.get_world_size() - 1) / dist.get_world_size(), dist.all_reduce
    gather, scatter = row_shard._gather, row_shard._reduce_scatter

    def counted(name: str, call: Callable[..., Any], which: int, times: int) -> Callable[..., Any]:
        def wrapped(*tensors: Tensor, **settings: Any) -> Any:
            sent[name] = sent.get(name, 0) + round(times * share * tensors[which].numel())
            return call(*tensors, **settings)

        return wrapped

    with (
        mock.patch.object(dist, "all_reduce", counted("all-reduce", reduce, 0, 2)),
        mock.patch.object(row_shard, "_gather", counted("gather", gather, 0, 1)),
        mock.patch.object(row_shard, "_reduce_scatter", counted("reduce-scatter", scatter, 1, 1)),
    ):
        yield


def run(one: hg.Supervised, sharded: list[str], steps: int) -> tuple[dict[str, int], dict[str, int], hg.Result]:
    """The bytes that this rank keeps, the numbers that it sends, and the result, with records at both ends alone."""
    kept, sent = Kept(), dict[str, int]()
    trainer = hg.Trainer(
        problem=hg.DataParallel(one, sharded=sharded),
        estimator=hg.Unrolled(solver=hg.GradientDescent(lr=0.1), inner_steps=_INNER_STEPS),
        optimizer=partial(torch.optim.Adam, lr=0.05),
        outer_steps=steps,
        record_every=steps,
        max_grad_norm=1.0,
        callbacks=[kept],
    )
    with counting(sent):
        result = trainer.fit()
    return kept.bytes, sent, result


def row(one: hg.Supervised, sharded: list[str], wanted: list[hg.Result]) -> list[str]:
    """A row of the table, of which `wanted` holds the result of the first."""
    _, few, _ = run(one, sharded, 1)
    kept, many, result = run(one, sharded, _LONG)
    wanted[:] = wanted or [result]
    _require_near(result, wanted[0])
    names = ("all-reduce", "reduce-scatter", "gather")
    between = [(many.get(name, 0) - few.get(name, 0)) / (_LONG - 1) for name in names]
    ends = few.get("gather", 0) - 2 * between[2]
    megabytes = [f"{x / 1e6:.3f}" for x in (*kept.values(), sum(kept.values()))]
    return [", ".join(sharded) or "none", *megabytes, *(f"{x:,.0f}" for x in (*between, ends))]


def main() -> None:
    """Print a table; the result of each run must be that of the first.

    "all-reduce", "reduce-scatter" and "gather" are those of an outer step between two records; "ends" is what two
    records and the result gather.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=100_000)
    parser.add_argument("--features", type=int, default=999)
    given = parser.parse_args()
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    console = Console(width=120, quiet=dist.get_rank() > 0)
    one = problem(given.examples, given.features)
    sizes = {name: x.numel() for name, x in one.init_hparams().items()}
    rows = Table("sharded", "λ, dF/dλ", "optimiser", "records", "sum", "all-reduce", "reduce-scatter", "gather", "ends")
    wanted: list[hg.Result] = []
    for sharded in ([], ["weights"], ["l2"], ["weights", "l2"]):
        rows.add_row(*row(one, sharded, wanted))
    console.print(f"{dist.get_world_size()} ranks, {sizes}; MB that rank 0 keeps; numbers that it sends")
    console.print(rows)
    dist.destroy_process_group()


def _bytes(part: Any) -> int:
    """The bytes of all tensors in a part of a state, each once."""
    leaves = [x.own if isinstance(x, Rows) else x for x in tree_leaves(part)]
    storages = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in leaves if isinstance(x, Tensor)}
    return sum(storages.values())


def _require_near(found: hg.Result, wanted: hg.Result) -> None:
    """Require the same hyperparameters up to rounding in float32.

    Raises:
        RuntimeError: if they differ.
    """
    for name, x in wanted.last.hparams.items():
        apart = ((found.last.hparams[name] - x).norm() / x.norm()).item()
        if apart > 1e-3:
            raise RuntimeError(f"{name} differs by {apart:.1e} from that of whole hyperparameters.")


if __name__ == "__main__":
    main()
