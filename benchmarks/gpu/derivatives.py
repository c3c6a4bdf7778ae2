"""One inner gradient, and products with the Hessian."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

import hypergrad as hg
from benchmarks.gpu.table import Row, Work, measure, require
from benchmarks.gpu.workload import Workload, workloads
from hypergrad.core.autodiff import Tensors, flatten, unflatten
from hypergrad.problem.oracle import Oracle
from hypergrad.problem.precision import in_precision


def gradient(device: torch.device, *, tiny: bool) -> bool:
    """∇g of each model: bare `backward()`, with the penalty written out, and ours with its options."""
    right = True
    for name, work in workloads(device, tiny=tiny).items():
        rows = {
            "bare forward and backward()": Row(partial(_bare, work), checked=False),
            "the same with the penalty, functional_call": Row(partial(_by_hand, work)),
            "ours": Row(partial(_ours, work)),
            **({} if name == "softmax" else {"autocast to bf16": Row(partial(_in_autocast, work), tolerance=math.inf)}),
            **{
                label: Row(partial(_ours, work, **more), tolerance=off)
                for label, (more, off) in _options(name, tiny=tiny).items()
            },
        }
        right &= measure(f"gradient, {work.title}", rows, device, tolerance=work.tolerance, rounds=9)
    return right


def products(device: torch.device, *, tiny: bool) -> bool:
    """φ linearised and one product, and a further product, of each model."""
    right = True
    for name, work in workloads(device, tiny=tiny).items():
        rows = {
            "bare forward and backward()": Row(partial(_bare, work), checked=False),
            "by hand, create_graph": Row(partial(_product_by_hand, work)),
            "ours: linearize, one product": Row(partial(_product, work, hg.Reverse())),
            "a further product": Row(partial(_further, work, hg.Reverse())),
            # Across the kinks of ReLU, and of a large model in tf32, differences are shown, and cannot be wrong.
            "by differences": Row(
                partial(_product, work, hg.CentredDifferences()),
                tolerance=math.inf if name in ("resnet", "gpt") else 5e-2,
            ),
            "forward over reverse": Row(partial(_product, work, hg.ForwardOverReverse())),
            **{
                f"ours, {label}": Row(partial(_product, work, hg.Reverse(), **more), tolerance=off)
                for label, (more, off) in _options(name, tiny=tiny).items()
            },
        }
        right &= measure(f"Hessian product, {work.title}", rows, device, tolerance=10 * work.tolerance, rounds=5)
    return right


def _options(name: str, *, tiny: bool) -> dict[str, tuple[dict[str, Any], float | None]]:
    """Settings of `hg.Supervised`, and the precision of the losses, with the error that they may have."""
    # Group norms of few numbers magnify rounding: by as much in the row of autocast, which is PyTorch alone.
    rounding = math.inf if name == "resnet" else 0.1
    options: dict[str, tuple[dict[str, Any], float | None]] = {"bf16-mixed": ({"precision": "bf16-mixed"}, rounding)}
    if name in ("resnet", "gpt"):
        blocks = True if name == "gpt" else ["[3-9]", "10"]
        options["recompute"] = ({"recompute": blocks}, None)
    if name != "gpt":
        of_resnet = {"micro_batch": 1 if tiny else 32}, 0.1  # in tf32, with other kernels for other sizes
        options["micro-batches"] = of_resnet if name == "resnet" else ({"micro_batch": 500}, None)
    return options


def _made(work: Workload, settings: dict[str, Any]) -> tuple[Oracle, Tensors]:
    """The inner loss with some settings, and where its derivatives are taken."""
    precision = settings.pop("precision", None)
    require(hg.Supervised, *settings)
    problem = in_precision(work.problem(**settings), precision)
    return Oracle(problem, problem.init_hparams(), problem.inner_batch(0)), problem.init_params()


def _bare(work: Workload) -> Work:
    module, (X, y), _ = work.parts
    module.train()

    def run() -> None:
        module.zero_grad(set_to_none=True)
        work.loss(module(X), y).backward()

    return run


def _by_hand(work: Workload) -> Work:
    params = work.start()
    return lambda: _flat(torch.autograd.grad(work.inner_loss(params, 1e-4), tuple(params.values())))


def _in_autocast(work: Workload) -> Work:
    run = _by_hand(work)

    def in_autocast() -> Tensor | None:
        with torch.autocast(work.device.type, torch.bfloat16):
            return run()

    return in_autocast


def _ours(work: Workload, **settings: Any) -> Work:
    oracle, params = _made(work, settings)

    def run() -> Tensor:
        with torch.no_grad():
            return flatten(oracle(params)[1])

    return run


def _direction(work: Workload) -> Tensor:
    params = work.start()
    size = sum(p.numel() for p in params.values())
    generator = torch.Generator(work.device).manual_seed(2)
    return torch.randn(size, generator=generator, device=work.device, dtype=work.dtype) / size**0.5


def _product_by_hand(work: Workload) -> Work:
    params, v = work.start(), _direction(work)

    def run() -> Tensor:
        w = tuple(params.values())
        grads = torch.autograd.grad(work.inner_loss(params, 1e-4), w, create_graph=True)
        return _flat(torch.autograd.grad(grads, w, tuple(unflatten(v, params).values())))

    return _with_formula_attention(run)


def _product(work: Workload, product: hg.Product, **settings: Any) -> Work:
    (oracle, params), v = _made(work, settings), _direction(work)
    return lambda: product.linearize(oracle, params).product(v)


def _further(work: Workload, product: hg.Product) -> Work:
    (oracle, params), v = _made(work, {}), _direction(work)
    at = product.linearize(oracle, params)
    return lambda: at.product(v)


def _with_formula_attention(run: Callable[[], Tensor]) -> Work:
    """Fused attention has no second derivative."""

    def work() -> Tensor:
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            return run()

    return work


def _flat(tensors: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([x.reshape(-1) for x in tensors])
