"""SRBA."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from hypergrad.core.autodiff import Tensors
from hypergrad.core.cost import spend
from hypergrad.core.validation import require_int
from hypergrad.problem.base import InnerProblem
from hypergrad.single_loop.base import Memory
from hypergrad.single_loop.direction_rows import MapRows
from hypergrad.single_loop.joint import Directions, JointMethod, sampled
from hypergrad.single_loop.terms import Terms


@dataclass(frozen=True, kw_only=True)
class SRBA(JointMethod):
    """SOBA whose directions follow those of all data: computed anew every `period` moves, and corrected in between.

    D ← D on all data                                            in the moves 0, period, 2 period, …
    D ← D + D_j(w, v, λ) − D_j(w', v', λ')                       in the others, with (w', v', λ') before the last move,

    where D_j are the directions of SOBA on the batches of the move. Since these change little from move to move, the
    variance is small near the solution, and steps stay constant. Instead of a table, the memory has the last point and
    directions, 3 n + 2 p numbers more for n parameters and p hyperparameters. A move costs twice that of SOBA, and one
    on all data as much as an epoch of them.

    The batches need not be the same in every epoch, but the problem must say how many an epoch has.

    Attributes:
        period: moves from one direction on all data to the next, ≥ 1; None for the batches of train and of dev
            together.

    Source: Dagréou, Moreau, Vaiter & Ablin, "A lower bound and a near-optimal algorithm for bilevel empirical risk
    minimization", AISTATS (2024).
    """

    period: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.period is not None:
            require_int(self, "period", least=1)

    @property
    def num_matvecs(self) -> int:
        """The product on the first batch of a move; the others of a move are counted when they are computed."""
        return 1

    def require(self, problem: InnerProblem) -> None:
        """As promised.

        Raises:
            ValueError: if the batches of an epoch are not known.
        """
        super().require(problem)
        for name in ("inner", "outer"):
            place = getattr(problem, f"{name}_place")(0)
            if place.num_batches == 1 and not place.is_fixed:
                raise ValueError(
                    f"SRBA needs all {name} batches of an epoch, but {type(problem).__name__} does not say how many "
                    f"there are. Override `{name}_place` in a problem of your own, give folds equal numbers of "
                    "batches, read data as a Dataset with __len__, or use MASOBA."
                )

    def begin_directions(self, terms: Terms, params: Tensors, hparams: Tensors) -> Memory:
        return {"moves": 0}

    def map_rows(self, memory: Memory, function: MapRows) -> Memory:
        if memory["moves"] == 0:
            return memory
        (D_w, D_v, D_hp, df_dw), before = memory["D"], memory["before"]
        before = before | {"hparams": function(before["hparams"])}
        return memory | {"D": (D_w, D_v, function(D_hp), df_dw), "before": before}

    def directions(self, terms: Terms, params: Tensors, hparams: Tensors, memory: Memory) -> tuple[Directions, Memory]:
        v, moves = memory["v"], memory["moves"]
        period = self.period or terms.inner_place().num_batches + terms.outer_place().num_batches
        if moves % period == 0:
            D = on_all_data(terms, params, hparams, v)
        else:
            then = memory["before"]
            now = sampled(terms, params, hparams, v)
            before = sampled(terms, then["params"], terms.rows.for_losses(then["hparams"]), then["v"])
            spend(matvecs=1)
            D = Directions(
                *(last + (new - old) for last, new, old in zip(memory["D"], _flats(now), _flats(before), strict=True)),
                inner_loss=now.inner_loss,
                outer_loss=now.outer_loss,
            )
        point = {"params": params, "hparams": terms.rows.kept(hparams), "v": v}
        return D, {"moves": moves + 1, "D": _flats(D), "before": point}


def on_all_data(terms: Terms, params: Tensors, hparams: Tensors, v: Tensor) -> Directions:
    """The directions of SOBA on all data, from each batch of an epoch in turn."""

    def inner() -> Iterator[tuple[Tensor, ...]]:
        for each in terms.inner_epoch():
            g = each.products(params, hparams, v)
            yield g.gradient, g.hvp, g.mixed, each.inner_place().weight * g.loss

    def outer() -> Iterator[tuple[Tensor, ...]]:
        for each in terms.outer_epoch():
            f = each.outer(params, hparams)
            yield f.wrt_params, f.wrt_hparams, each.outer_place().weight * f.loss

    spend(matvecs=terms.inner_place().num_batches - 1)
    D_w, hvp, mixed, g_loss = _means(inner())
    df_dw, df_dhp, f_loss = _means(outer())
    D_hp = terms.rows.summed(mixed + df_dhp, hparams)
    return Directions(D_w, hvp + df_dw, D_hp, df_dw, g_loss, f_loss)


def _means(each: Iterator[tuple[Tensor, ...]]) -> list[Tensor]:
    """The mean of each entry, of which one tuple is in memory at a time."""
    totals, num = list(next(each)), 1
    for entries in each:
        totals, num = [total + x for total, x in zip(totals, entries, strict=True)], num + 1
    return [total / num for total in totals]


def _flats(D: Directions) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return D.w, D.v, D.hp, D.outer_gradient
