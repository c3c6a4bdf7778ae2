"""`Quadratic` as a finite sum: its examples differ, and their mean is the quadratic with its closed form."""

from typing import Any

import torch
from torch import Tensor

import hypergrad as hg
from hypergrad.core.autodiff import Tensors, flatten
from hypergrad.data.minibatch import scheduled
from hypergrad.problem.batch_place import BatchPlace, place_of

TRAIN, DEV = 14, 11


class FiniteSum(hg.Quadratic):
    """Examples i of train and k of dev, in float64, whose means over i and k are those of `Quadratic`.

    g_i = ½ wᵀ (A_i + penalty r_i I) w − wᵀ (c_i + C_i shift)
    f_k = ½ wᵀ M_k w − wᵀ b_k + ½ targetᵀ M target + shiftᵀ D_k w + s_k (½ ‖shift‖² + penalty²)

    Args:
        batch_size: examples of an inner batch; None for all.
        dev_sample: examples of an outer batch; None for all.
        fixed: whether the batches are the same in every epoch.
        seed: of the batches.
    """

    A_i: Tensor
    c_i: Tensor
    C_i: Tensor
    r_i: Tensor
    M_k: Tensor
    b_k: Tensor
    D_k: Tensor
    s_k: Tensor

    def __init__(
        self, *, batch_size: int | None = 4, dev_sample: int | None = 3, fixed: bool = True, seed: int = 3
    ) -> None:
        super().__init__()
        self.double()
        self.sizes, self.fixed, self.seed = {"inner": batch_size, "outer": dev_sample}, fixed, seed
        one, b = self.c.new_ones(()), self.M @ self.target
        means = {
            "A_i": self.A,
            "c_i": self.c,
            "C_i": self.C,
            "r_i": one,
            "M_k": self.M,
            "b_k": b,
            "D_k": self.D,
            "s_k": one,
        }
        generator = torch.Generator().manual_seed(5)
        for name, mean in means.items():
            num = TRAIN if name.endswith("i") else DEV
            noise = 0.5 * torch.randn(num, *mean.shape, generator=generator, dtype=torch.float64)
            if name in ("A_i", "M_k"):
                noise = noise @ noise.mT / 3
            self.register_buffer(name, mean + noise - noise.mean(0))

    def inner_batch(self, step: int) -> Any:
        return scheduled(step, **self._schedule("inner"))[0]

    def outer_batch(self, step: int) -> Any:
        return scheduled(step, **self._schedule("outer"))[0]

    def inner_place(self, step: int) -> BatchPlace:
        return place_of(step, **self._schedule("inner"))

    def outer_place(self, step: int) -> BatchPlace:
        return place_of(step, **self._schedule("outer"))

    def _schedule(self, level: str) -> dict[str, Any]:
        size = TRAIN if level == "inner" else DEV
        cut = {"size": size, "batch_size": self.sizes[level], "seed": self.seed, "drop_last": False}
        return cut | {"fixed": self.fixed}

    def mean(self, name: str, rows: Tensor | None) -> Tensor:
        """The mean of a coefficient over some examples; None for all."""
        each = self.get_buffer(name)
        return (each if rows is None else each[rows]).mean(0)

    def hessian(self, hparams: Tensors, rows: Tensor | None) -> Tensor:
        """That of the inner loss on some examples."""
        return self.mean("A_i", rows) + hparams["penalty"] * self.mean("r_i", rows) * torch.eye(len(self.c))

    def inner_loss(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        w = flatten(params)
        linear = self.mean("c_i", batch) + self.mean("C_i", batch) @ hparams["shift"]
        return w @ self.hessian(hparams, batch) @ w / 2 - w @ linear

    def outer_loss(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        w, shift = flatten(params), hparams["shift"]
        quadratic = (
            w @ self.mean("M_k", batch) @ w / 2 - w @ self.mean("b_k", batch) + self.target @ self.M @ self.target / 2
        )
        direct = self.mean("s_k", batch) * (shift @ shift / 2 + hparams["penalty"] ** 2)
        return quadratic + shift @ self.mean("D_k", batch) @ w + direct

    def directions_by_hand(
        self, w: Tensor, v: Tensor, hparams: Tensors, rows: Tensor | None, dev_rows: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """[∇_w g, H v, ∇²_λw g v] on some examples of train, and [∇_w f, ∇_λ f] on some of dev, from the formulas."""
        H, C, shift = self.hessian(hparams, rows), self.mean("C_i", rows), hparams["shift"]
        mixed = torch.cat([(self.mean("r_i", rows) * (v @ w)).reshape(1), -C.T @ v])
        D, s = self.mean("D_k", dev_rows), self.mean("s_k", dev_rows)
        df_dw = self.mean("M_k", dev_rows) @ w - self.mean("b_k", dev_rows) + D.T @ shift
        df_dhp = torch.cat([(2 * s * hparams["penalty"]).reshape(1), D @ w + s * shift])
        return torch.cat([H @ w - self.mean("c_i", rows) - C @ shift, H @ v, mixed]), torch.cat([df_dw, df_dhp])
