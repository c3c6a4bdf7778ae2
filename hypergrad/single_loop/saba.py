"""SABA."""

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hypergrad.compile.tracing import CannotCompileError
from hypergrad.core.autodiff import Tensors
from hypergrad.problem.base import InnerProblem
from hypergrad.problem.batch_place import BatchPlace
from hypergrad.single_loop.base import Memory
from hypergrad.single_loop.direction_rows import MapRows
from hypergrad.single_loop.joint import Directions, JointMethod
from hypergrad.single_loop.terms import Terms

_LARGE = 2**30
"""Bytes of a table of which the user is told: 1 GiB, as for data that is read into memory."""

_COPIED = 2**22
"""The most bytes of tables in a compiled move. A judgement: to copy more takes longer than a small move."""


@dataclass(frozen=True, kw_only=True)
class SABA(JointMethod):
    """SOBA whose terms are corrected by a table of their last values on each batch (SAGA), so that steps stay constant.

    Let T_j be a term of the directions on batch j of K, multiplied by the weight K n_j / n of the batch, and M_j its
    row in the table:

    direction = T_j − M_j + 1/K Σ_i M_i,    then    M_j ← T_j.

    The mean of the direction over j is 1/K Σ_j T_j, the term on all data, for any table; and all directions are equal
    to it once each row is the term at the present (w, v, λ). So the variance vanishes at the solution.

    The table begins at zeros, and has K (2 n + p) + L (n + p) numbers for K batches of train, L of dev, n parameters
    and p hyperparameters. The batches must be the same in every epoch, as with `Supervised(fixed_batches=True)`.

    Source: Dagréou, Ablin, Vaiter & Moreau, "A framework for bilevel optimization that enables stochastic and global
    variance reduction algorithms", NeurIPS (2022); Defazio, Bach & Lacoste-Julien, "SAGA", NIPS (2014).
    """

    def require(self, problem: InnerProblem) -> None:
        """As promised.

        Raises:
            ValueError: if the batches are not the same in every epoch.
        """
        super().require(problem)
        for name in ("inner", "outer"):
            if not getattr(problem, f"{name}_place")(0).is_fixed:
                kind = type(problem).__name__
                raise ValueError(
                    f"SABA keeps a row for each {name} batch, which must hold the same examples in every epoch, but "
                    f"those of {kind} are {'not fixed' if name == 'inner' else 'other samples of dev each time'}. "
                    "Give hg.Supervised or hg.HyperCleaning fixed_batches=True (folds need equal numbers of batches), "
                    f"override `{name}_place` in a problem of your own, or use SRBA, which has no table."
                )

    def begin_directions(self, terms: Terms, params: Tensors, hparams: Tensors) -> Memory:
        n, p = (sum(x.numel() for x in tensors.values()) for tensors in (params, terms.rows.kept(hparams)))
        like = next(iter(params.values()))
        sizes = {
            "inner": (terms.inner_place().num_batches, 2 * n + p),
            "outer": (terms.outer_place().num_batches, n + p),
        }
        _warn_of_size(sum(num * size for num, size in sizes.values()) * like.element_size(), sizes)
        return {name: _zeros(num, like.new_zeros(size)) for name, (num, size) in sizes.items()}

    def directions(self, terms: Terms, params: Tensors, hparams: Tensors, memory: Memory) -> tuple[Directions, Memory]:
        g, f = terms.products(params, hparams, memory["v"]), terms.outer(params, hparams)
        of_hp, f_hp = (terms.rows.summed(x, hparams) for x in (g.mixed, f.wrt_hparams))
        of_g, inner = _corrected(torch.cat((g.gradient, g.hvp, of_hp)), memory["inner"], terms.inner_place())
        of_f, outer = _corrected(torch.cat((f.wrt_params, f_hp)), memory["outer"], terms.outer_place())
        n, p = len(g.gradient), len(of_hp)
        D_w, hvp, mixed = of_g.split((n, n, p))
        df_dw, df_dhp = of_f.split((n, p))
        D = Directions(D_w, hvp + df_dw, mixed + df_dhp, df_dw, g.loss, f.loss)
        return D, {"inner": inner, "outer": outer}

    def map_rows(self, memory: Memory, function: MapRows) -> Memory:
        """As promised; a row becomes a pair of its part of w and that of λ, if the function makes no vector of this."""
        outer = memory["outer"]["average"]
        n = len(memory["inner"]["average"]) - len(outer) if isinstance(outer, Tensor) else len(outer[0])
        tables = {"inner": _mapped(memory["inner"], 2 * n, function), "outer": _mapped(memory["outer"], n, function)}
        return memory | tables

    def to_compiled(self, memory: Memory) -> Memory:
        """As promised, with each table as one tensor, which a compiled move copies.

        Raises:
            CannotCompileError: if that would take as long as the rest of a move.
        """
        tables = {name: torch.stack(memory[name]["rows"]) for name in ("inner", "outer")}
        size = sum(rows.nbytes for rows in tables.values())
        if size > _COPIED:
            raise CannotCompileError(
                f"each move would copy tables of {size / 2**20:.3g} MiB, and more than {_COPIED / 2**20:.3g} takes long"
            )
        return memory | {name: memory[name] | {"rows": rows} for name, rows in tables.items()}

    def from_compiled(self, memory: Memory) -> Memory:
        return memory | {name: memory[name] | {"rows": memory[name]["rows"].unbind()} for name in ("inner", "outer")}


def _zeros(num: int, row: Tensor) -> Memory:
    """A table of zeros, whose rows share their memory until they are replaced."""
    return {"rows": (row,) * num, "average": row}


def _corrected(new: Tensor, table: Memory, place: BatchPlace) -> tuple[Tensor, Memory]:
    """The corrected term, and the table with `new` in its row.

    The rows are tensors in a tuple. So the tables of two moves share all rows but one, and an earlier table stays as it
    was, without a copy of its rows. In a compiled move they are one tensor.
    """
    rows, average, j = table["rows"], table["average"], place.index
    if isinstance(rows, Tensor):  # and j is one too, whose value is not known
        at = torch.as_tensor(j).reshape(1)
        old, rows = rows.index_select(0, at)[0], rows.index_copy(0, at, new[None])
    else:
        old, rows = rows[j], (*rows[:j], new, *rows[j + 1 :])
    change = new - old
    return change + average, {"rows": rows, "average": average.add(change, alpha=1 / place.num_batches)}


def _mapped(table: Memory, size: int, function: MapRows) -> Memory:
    """A table with a function of the part of λ in each row, which follows `size` numbers of w."""

    def mapped(row: Any) -> Any:
        of_w, of_hp = row.split((size, len(row) - size)) if isinstance(row, Tensor) else row
        found = function(of_hp)
        return torch.cat((of_w, found)) if isinstance(found, Tensor) else (of_w.clone(), found)

    return {"rows": tuple(map(mapped, table["rows"])), "average": mapped(table["average"])}


def _warn_of_size(num_bytes: int, sizes: dict[str, tuple[int, int]]) -> None:
    """Warn of a table that needs much memory."""
    if num_bytes > _LARGE:
        (inner, wide), (outer, narrow) = sizes.values()
        warnings.warn(
            f"The table of SABA will take {num_bytes / 2**30:.1f} GiB: {inner} rows of {wide:,} numbers and {outer} "
            f"of {narrow:,}, a row for each batch of train and of dev. Larger batches need fewer rows, and SRBA none.",
            UserWarning,
            stacklevel=2,
        )
