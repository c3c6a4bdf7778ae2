"""Problems small enough for tests in bfloat16 on a CPU, and how far two hypergradients are apart."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import hypergrad as hg
from hypergrad.core.autodiff import flatten


class Convolutions(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 8, 3, padding=1, stride=2)
        self.last = nn.Linear(8 * 16, 5)

    def forward(self, X):
        return self.last(torch.tanh(self.second(torch.tanh(self.first(X)))).flatten(1))


class Transformer(nn.Module):
    """Two layers on eight tokens."""

    def __init__(self):
        super().__init__()
        self.tokens, self.places = nn.Embedding(20, 16), nn.Parameter(0.1 * torch.randn(8, 16))
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True, activation="gelu")
        self.body, self.last = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(16, 5)

    def forward(self, X):
        return self.last(self.body(self.tokens(X) + self.places).mean(1))


MODELS = {
    "MLP": lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.Tanh(), nn.Linear(24, 5)),
    "CNN": Convolutions,
    "transformer": Transformer,
}


def classifier(name: str, dtype: torch.dtype = torch.float32, wrap=lambda model: model, **settings) -> hg.Supervised:
    """48 train and 48 dev examples of five classes, with a weight for each train example and an L2 penalty."""
    torch.manual_seed(0)
    model, g = MODELS[name](), torch.Generator().manual_seed(1)
    if name == "transformer":
        X = torch.randint(0, 20, (96, 8), generator=g)
        y = X.float().mean(1).div(4).long().clamp(max=4)
    else:
        X = torch.randn(96, 1, 8, 8, generator=g)
        y = (X.flatten(1)[:, :5] + 0.5 * torch.randn(96, 5, generator=g)).argmax(1)
        X = X.to(dtype)
    hyperparameters = {"weights": hg.ExampleWeights(), "l2": hg.L2(init=0.05)}
    parts = {"train": (X[:48], y[:48]), "dev": (X[48:], y[48:])}
    settings = {"model": wrap(model).to(dtype), "loss": cross_entropy, "hyperparameters": hyperparameters} | settings
    usual: dict[str, Any] = {"probe": False}
    return hg.Supervised(**parts, **usual | settings)


def apart(found: hg.Tensors, wanted: hg.Tensors) -> float:
    """‖x − y‖ / ‖y‖."""
    x, y = (flatten(dict(sorted(tensors.items()))).double() for tensors in (found, wanted))
    return ((x - y).norm() / y.norm()).item()


def double(tensors: hg.Tensors) -> hg.Tensors:
    return {name: x.double() for name, x in tensors.items()}


class Regression(hg.InnerProblem):
    """Weighted ridge regression, or with a hidden tanh layer where `seed` is odd; random, with 24 train examples."""

    X: Tensor
    y: Tensor
    w: Tensor
    v: Tensor

    def __init__(self, seed: int):
        super().__init__()
        g = torch.Generator().manual_seed(seed)
        p = (2, 5, 12)[seed % 3]
        self.bends, self.l2 = bool(seed % 2), 10.0 ** -(seed % 4)
        self.register_buffer("X", torch.randn(48, p, generator=g))
        self.register_buffer("y", self.X @ torch.randn(p, generator=g) + torch.randn(48, generator=g))
        self.register_buffer("w", 0.1 * torch.randn(p, generator=g))
        self.register_buffer("v", 0.1 * torch.randn(2, p, generator=g))
        self.float()

    def init_params(self):
        return {"w": self.w, "v": self.v} if self.bends else {"w": self.w}

    def hyperparameters(self):
        l2 = hg.Hyperparameter(self.l2, constraint=hg.positive)
        return {"l2": l2, "scale": hg.Hyperparameter(0.0, shape=(24,))}

    def outputs_of(self, params, X):
        z = X @ params["w"]
        return z + torch.tanh(X @ params["v"].T).sum(1) if self.bends else z

    def inner_loss(self, params, hparams, batch):
        squares = (self.outputs_of(params, self.X[:24]) - self.y[:24]) ** 2
        return (hparams["scale"].exp() * squares).mean() + hparams["l2"] * sum(
            p.square().sum() for p in params.values()
        )

    def outer_loss(self, params, hparams, batch):
        return ((self.outputs_of(params, self.X[24:]) - self.y[24:]) ** 2).mean()
