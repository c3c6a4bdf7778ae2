"""JAX beside it, where it is installed: a jitted scan through the same training."""

import importlib
import importlib.util
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch

import hypergrad as hg
from benchmarks.gpu.table import MissingError, Row, Work, measure
from benchmarks.problem.softmax import Digits
from benchmarks.training import Training
from hypergrad.core.autodiff import flatten


def jax_scan(device: torch.device, *, tiny: bool) -> bool:
    """Softmax regression on digits, a penalty for each weight, gradient descent, float64."""
    training = Training("softmax regression on digits, float64", Digits, 10 if tiny else 1000, lr=0.5)
    rows = {
        "Graph": Row(partial(_ours, training, device, hg.Graph(), compile=False)),
        **({} if tiny else {"Store, compiled": Row(partial(_ours, training, device, hg.Store(), compile=True))}),
        **{name: Row(partial(_peer, training, name)) for name in ("JAX, scan", "JAX, scan with checkpoints")},
    }
    title = f"beside JAX, T = {training.num_steps}, {training.title}"
    return measure(title, rows, device, tolerance=training.tolerance)


def _ours(training: Training, device: torch.device, tape: hg.Tape, *, compile: bool) -> Work:
    before = torch.get_default_dtype()
    torch.set_default_dtype(training.dtype)
    try:
        problem = training.make()
        for name in ("X", "y", "X_dev", "y_dev"):
            setattr(problem, name, getattr(problem, name).to(device))
        hparams, params = problem.init_hparams(), problem.init_params()
    finally:
        torch.set_default_dtype(before)
    estimator = hg.Unrolled(solver=training.solver, tape=tape, inner_steps=training.num_steps, compile=compile)
    return lambda: flatten(estimator.estimate(problem, hparams, params).grad)


def _peer(training: Training, name: str) -> Work:
    absent = [library for library in ("jax", "jaxopt") if importlib.util.find_spec(library) is None]
    if absent:
        raise MissingError(f"{' and '.join(absent)} not installed")
    peer = importlib.import_module("benchmarks.peers.unrolled_jax")
    with tempfile.TemporaryDirectory() as folder, np.load(training.save(Path(folder))) as saved:
        work, _ = peer.load(dict(saved))[name]
    return lambda: torch.from_numpy(np.array(work(training.num_steps, 0.0)))
