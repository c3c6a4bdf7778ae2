"""Random misuse of the functional interface: each call must be right, or answered by an error that names what it met.

The problem is g(w, λ) = Σ (w − a λ)² eˡ with a = (1, 2, 3) and its dev loss Σ w²/2, at λ = 0.5.
"""

import random
import traceback
import warnings
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import hypergrad as hg

A = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
L = torch.tensor(0.5, dtype=torch.float64)
Verdict = tuple[str, str]


def g(w: Any, hp: Any) -> Tensor:
    return ((w - A * hp) ** 2).sum()


def f(w: Any, hp: Any) -> Tensor:
    return (w**2).sum() / 2


def in_place(w: Any, hp: Any) -> Tensor:
    w -= A * hp
    return (w**2).sum()


def unhelpful(w: Any, hp: Any) -> Tensor:
    raise KeyError("of the user")


W = A * L
NAN = torch.tensor([1.0, torch.nan, 3.0], dtype=torch.float64)
LEAF = (2 * L.clone().requires_grad_()) / 2
VALUES: dict[str, Any] = {
    "none": None,
    "string": "w",
    "integer": 3,
    "float": 0.5,
    "bool": True,
    "complex number": 1j,
    "numpy": np.ones(3),
    "integers": torch.tensor([1, 2, 3]),
    "one integer": torch.tensor(1),
    "bools": torch.tensor([True, False, True]),
    "complex": torch.ones(3, dtype=torch.complex128),
    "sparse": torch.eye(3, dtype=torch.float64).to_sparse(),
    "sparse vector": W.to_sparse(),
    "meta": torch.ones(3, device="meta"),
    "half": W.half(),
    "float32": W.float(),
    "float32 number": L.float(),
    "bfloat16": W.bfloat16(),
    "nan": NAN,
    "inf": NAN.nan_to_num(torch.inf),
    "nan number": torch.tensor(torch.nan, dtype=torch.float64),
    "empty": torch.ones(0, dtype=torch.float64),
    "empty list": [],
    "empty dict": {},
    "list": [W],
    "tuple of nothing": (None,),
    "dict": {"w": W},
    "dict of a string": {"w": "w"},
    "integer keys": {0: W},
    "nested": {"a": {"b": W}},
    "nested list": [[W]],
    "ordered": OrderedDict(w=W),
    "set": {1.0},
    "generator": (v for v in (W,)),
    "module": nn.Linear(3, 1).double(),
    "module class": nn.Linear,
    "function": f,
    "parameter": nn.Parameter(W.clone()),
    "requires no gradient": W.clone().requires_grad_(False),
    "no leaf": W * LEAF * 2,
    "view": torch.stack([W, W])[0],
    "transposed": torch.stack([W, W]).T,
    "wrong shape": torch.ones(4, dtype=torch.float64),
    "matrix": torch.ones(3, 3, dtype=torch.float64),
    "number": torch.tensor(0.5, dtype=torch.float64),
    "expanded": torch.ones(1, dtype=torch.float64).expand(3),
    "huge": W * 1e300,
    "numpy number": np.float64(0.5),
    "dtype": torch.float64,
}
LOSSES: dict[str, Any] = {
    "none": None,
    "tensor": W,
    "string": "loss",
    "no arguments": lambda: g(W, L),
    "one argument": lambda w: g(w, L),
    "three arguments": lambda w, hp, batch: g(w, hp),
    "vector": lambda w, hp: (w - A * hp) ** 2,
    "one entry": lambda w, hp: g(w, hp).reshape(1),
    "python float": lambda w, hp: 1.0,
    "item": lambda w, hp: g(w, hp).item(),
    "none returned": lambda w, hp: None,
    "tuple returned": lambda w, hp: (g(w, hp), 1),
    "dict returned": lambda w, hp: {"loss": g(w, hp)},
    "integer tensor": lambda w, hp: torch.tensor(3),
    "complex loss": lambda w, hp: g(w, hp) * 1j,
    "detached": lambda w, hp: g(w, hp).detach(),
    "numpy inside": lambda w, hp: torch.tensor(float(np.sum(w.detach().numpy()))),
    "nan loss": lambda w, hp: g(w, hp) * torch.nan,
    "inf loss": lambda w, hp: g(w, hp) / 0,
    "empty loss": lambda w, hp: w[:0],
    "in place": in_place,
    "raises": unhelpful,
    "no gradient": torch.no_grad()(g),
    "random": lambda w, hp: g(w, hp) + torch.randn(()),
    "random slope": lambda w, hp: g(w, hp) + (w * torch.randn(3)).sum(),
    "indefinite": lambda w, hp: g(w, hp) * torch.tensor([1.0, -1.0, 1.0])[1],
    "singular": lambda w, hp: (w.sum() - 6 * hp) ** 2,
    "linear": lambda w, hp: (w * 0).sum() + hp,
    "ignores w": lambda w, hp: hp**2,
    "ignores everything": lambda w, hp: torch.ones((), requires_grad=True),
    "half": lambda w, hp: g(w, hp).half(),
    "sparse loss": lambda w, hp: g(w, hp).to_sparse(),
    "sqrt at zero": lambda w, hp: ((w - A * hp) ** 2).sqrt().sum(),
    "generator": lambda w, hp: (yield g(w, hp)),
}
OPTIONS: dict[str, dict[str, list[Any]]] = {
    "hypergradient": {
        "linsolve": [None, hg.CG, "cg", hg.Reverse(), hg.CG(max_iter=1), hg.Dense()],
        "product": [None, hg.Reverse, hg.CG(), hg.GaussNewton(), hg.ForwardOverReverse()],
        "damping": [-1.0, torch.nan, "a", None, L, True],
        "error_bar": [None, 2, "yes", False],
        "batches": [[], None, 3, "ab", [1, 2], [None], (v for v in (1, 2)), torch.ones(2)],
        "seed": [-1, 1.5, None, "a", 2**70],
        "precision": ["float64", "half", 16, "tf32", "bf16-true", "bf16-mixed"],
    },
    "argmin": {
        "at": ["solve", None, 3, "resolve"],
        "order": [-1, 1.5, "a", None, True, 0],
        "linsolve": [None, hg.CG, "cg", hg.Reverse()],
        "tol": [-1.0, torch.nan, "a", L, 0],
        "inner_step": [-1, 1.5, None],
    },
    "expansion": {
        "order": [0, -1, 1.5, "a", None, True],
        "linsolve": [None, hg.CG, "cg"],
        "tol": [-1.0, torch.nan, "a", L],
        "compile": [None, 2, "yes"],
    },
    "response": {"linsolve": [None, hg.CG, "cg"], "tol": [-1.0, torch.nan, "a", L]},
    "jvp": {"num_base_args": [0, -1, 1.5, "a", None, 5]},
}


def hypergradient(inner: Any, outer: Any, w: Any, hp: Any, direction: Any, options: dict[str, Any]) -> Any:
    return hg.hypergradient(inner, outer, w, hp, **options).grad


def argmin(inner: Any, outer: Any, w: Any, hp: Any, direction: Any, options: dict[str, Any]) -> Any:
    return hg.append_jvp(hg.argmin(inner, w, hp, **options))(hp, direction)


def call_argmin(inner: Any, outer: Any, w: Any, hp: Any, direction: Any, options: dict[str, Any]) -> Any:
    return hg.argmin(inner, W.clone(), L, **options)(hp)


def expansion(inner: Any, outer: Any, w: Any, hp: Any, direction: Any, options: dict[str, Any]) -> Any:
    settings: dict[str, Any] = {"order": 2} | options
    return hg.TaylorExpansion(**settings).at(inner, w, hp).derivatives(direction)[0]


def prediction(inner: Any, outer: Any, w: Any, hp: Any, direction: Any, options: dict[str, Any]) -> Any:
    return hg.TaylorExpansion(order=1).at(g, W, L).predict(hp)


def response(inner: Any, outer: Any, w: Any, hp: Any, direction: Any, options: dict[str, Any]) -> Any:
    return hg.LinearResponse(**options).at(inner, w, hp).jvp(direction)


def adjoint(inner: Any, outer: Any, w: Any, hp: Any, direction: Any, options: dict[str, Any]) -> Any:
    return hg.LinearResponse().at(g, W, L).vjp(w)


def root(inner: Any, outer: Any, w: Any, hp: Any, direction: Any, options: dict[str, Any]) -> Any:
    inner = hg.Root(inner if inner is not g else lambda w, hp: w - A * hp)
    settings: dict[str, Any] = {"order": 2} | options
    return hg.TaylorExpansion(**settings).at(inner, w, hp).derivatives(direction)[0]


def directional(inner: Any, outer: Any, w: Any, hp: Any, direction: Any, options: dict[str, Any]) -> Any:
    return hg.append_jvp(lambda v: f(v, hp), **options)(w, w)


CALLS: dict[str, tuple[Callable[..., Any], str, Tensor]] = {
    "hypergradient": (hypergradient, "hypergradient", (A * A).sum() * L),
    "argmin": (argmin, "argmin", A),
    "argmin called": (call_argmin, "argmin", W),
    "TaylorExpansion": (expansion, "expansion", A),
    "predict": (prediction, "expansion", W),
    "LinearResponse": (response, "response", A),
    "vjp": (adjoint, "response", (A * W).sum()),
    "Root": (root, "expansion", A),
    "append_jvp": (directional, "jvp", (W * W).sum()),
}
"""By name: the call, its options, and what is right."""


def draw(seed: int, number: int) -> tuple[str, dict[str, Any], str]:
    """A call, its arguments, and what is misused."""
    rng = random.Random(f"misuse {seed}/{number}")
    call = rng.choice(list(CALLS))
    w, hp = W.clone(), L.clone()  # a loss may change its arguments in place
    arguments: dict[str, Any] = {
        "inner": g,
        "outer": f,
        "w": w,
        "hp": hp,
        "direction": torch.ones_like(L),
        "options": {},
    }
    options = OPTIONS.get(CALLS[call][1], {})
    place = rng.choice(["inner", "outer", "w", "w", "hp", "hp", "direction", *(["options"] if options else [])])
    if place == "options":
        key = rng.choice(list(options))
        value = rng.choice(options[key])
        return call, arguments | {"options": {key: value}}, f"{key}={value!r}"
    pool = LOSSES if place in ("inner", "outer") else VALUES
    name = rng.choice(list(pool))
    value = pool[name]
    return call, arguments | {place: value.clone() if type(value) is Tensor else value}, f"{place}: {name}"


def misuse_verdict(seed: int, number: int) -> Verdict:
    """Of one call."""
    name, arguments, what = draw(seed, number)
    call, _, truth = CALLS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = call(**arguments)
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            by_user = isinstance(error, KeyError) and "of the user" in str(error)
            clear = isinstance(error, hg.HypergradError | ValueError | TypeError | NotImplementedError)
            is_ours = "/hypergrad/" in frames[-1].filename and "/torch/" not in frames[-1].filename
            in_loss = frames[-1].filename == __file__ and frames[-1].name != "misuse_verdict"
            word = "refused" if by_user or in_loss or (clear and is_ours) else "traceback"
            return word, f"{name}({what}) {type(error).__name__}: {error} at {frames[-1].filename}:{frames[-1].lineno}"
    while isinstance(found, dict | list | tuple) and len(found) == 1:
        found = next(iter(found.values())) if isinstance(found, dict) else found[0]
    shown = f"{name}({what}) = {found}"
    if isinstance(found, float):
        found = torch.tensor(found)
    if isinstance(found, Tensor) and found.shape == truth.shape and not found.is_meta:
        rtol = 1e-8 if found.dtype == torch.float64 else 1e-2
        return "right" if torch.allclose(found.double(), truth, rtol=rtol) else "other", shown
    return "other", shown
