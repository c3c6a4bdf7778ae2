"""The random problems that are a module with a loss of torch, as `hg.Supervised`: what K-FAC serves."""

from dataclasses import replace

import torch
from choices import Choices
from problems import NETWORKS, RandomProblem, Spec
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss

import hypergrad as hg
from hypergrad.core.autodiff import Tensors, unflatten

ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU}
FAMILIES = ("squares", "logistic", *ACTIVATIONS)
PARTS = ("l2", "each l2")


class HalfL2(hg.L2):
    """½ Σ_j λ_j w_j²."""

    def penalty(self, value: Tensor, params: Tensors) -> Tensor:
        return super().penalty(value, params) / 2


class LayeredProblem(RandomProblem):
    """A random problem with the parameters of `supervised`, in their order.

    The loss of torch is the mean of (z − y)², twice that of the family, and Σ λ w² is twice its penalty.
    """

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        if spec.family in NETWORKS:
            self.shapes = {name: self.shapes[name] for name in ("W", "b", "v") if name in self.shapes}
        if spec.family != "logistic":
            self.inner_unit = self.outer_unit = 2.0

    def supervised(self) -> hg.Supervised:
        """The same problem from a module."""
        spec, start = self.spec, self.init_params()
        if spec.family in NETWORKS:
            hidden, inputs = self.shapes["W"]
            first = nn.Linear(inputs, hidden, bias="b" in start)
            model = nn.Sequential(first, ACTIVATIONS[spec.family](), nn.Linear(hidden, 1, bias=False))
        else:
            model = nn.Linear(self.n, 1, bias=False)
        model = model.to(self.start)
        values = unflatten(self.start, dict(model.named_parameters()))
        with torch.no_grad():
            for name, w in model.named_parameters():
                w.copy_(values[name])
        is_logistic = spec.family == "logistic"
        kind, init = HalfL2 if is_logistic else hg.L2, 10.0**spec.log_l2
        return hg.Supervised(
            model=model,
            loss=binary_cross_entropy_with_logits if is_logistic else mse_loss,
            train=(self.X, self.y),
            dev=(self.X_dev, self.y_dev),
            hyperparameters={part: kind(init=init, per="all" if part == "l2" else "weight") for part in spec.parts},
        )


def with_layers(choices: Choices, spec: Spec) -> Spec:
    """The problem with a family and hyperparameters that a module has."""
    family = spec.family if spec.family in FAMILIES else choices.one(FAMILIES)
    sizes = spec.sizes
    if family in NETWORKS:
        sizes = (choices.integer(1, 3), choices.integer(1, 4), choices.integer(2, 3))
    given = replace(spec, family=family, sizes=sizes, outer="dev", direct=False, scales=(0, 0, 0))
    # Parameters in bfloat16 are refused.
    return replace(given, parts=(choices.one(PARTS),), dtype="float64" if spec.dtype == "float64" else "float32")
