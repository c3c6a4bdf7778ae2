"""What memory the estimators take: of CG a few vectors at a million parameters, of forward mode the same at any T."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tables import synthetic

import hypergrad as hg
from benchmarks.peak import PeakBytes

ROOT = Path(__file__).parent.parent.parent
RING = """
import json
import torch
import hypergrad as hg
from benchmarks.peers.memory import peak_megabytes

torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)


class Ring(hg.InnerProblem):
    # g = ½ Σ (w_{i+1} − w_i)² + ½ λ ‖w‖² − bᵀw and f = ½ ‖w − t‖², diagonal in the basis of Fourier.

    def __init__(self, n):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.b, self.t = torch.randn(n, generator=generator), torch.randn(n, generator=generator)

    def init_params(self): return {"w": torch.zeros_like(self.b)}
    def hyperparameters(self): return {"l2": hg.Hyperparameter(0.1, constraint=hg.positive)}
    def inner_loss(self, p, h, batch):
        w = p["w"]
        return ((w.roll(1) - w).square().sum() + h["l2"] * w.square().sum()) / 2 - self.b @ w
    def outer_loss(self, p, h, batch): return (p["w"] - self.t).square().sum() / 2

    def inverse(self, v):
        k = torch.arange(len(v) // 2 + 1)
        values = 0.1 + 2 - 2 * torch.cos(2 * torch.pi * k / len(v))
        return torch.fft.irfft(torch.fft.rfft(v) / values, n=len(v))


def work(n):
    problem = Ring(n)
    w = problem.inverse(problem.b)
    estimator = hg.Implicit(inner_steps=0, linsolve=hg.CG(tol=1e-8), error_bar=False)
    truth = -problem.inverse(w - problem.t) @ w
    hparams = problem.init_hparams()
    return lambda: estimator.estimate(problem, hparams, {"w": w}), truth.item()


work(1000)[0]()  # what is imported and allocated once does not count
estimate, truth = work(10**6)
found, megabytes = peak_megabytes(estimate)
off = abs(found.grad["l2"].item() / truth - 1)
print(json.dumps({"off": off, "vectors": megabytes * 2**20 / 8e6, "products": found.stats["num_matvecs"],
                  "residual": found.stats["adjoint_residual"], "condition": found.stats["adjoint_condition"]}))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux's /proc")
def test_cg_takes_a_few_vectors_at_a_million_parameters():
    done = subprocess.run(
        [sys.executable, "-c", RING], env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["off"] <= 1e-8
    assert found["residual"] <= 1e-8
    assert found["products"] < 100  # ½ √κ log(2/ε) at κ = 4.1/0.1
    assert 20 <= found["condition"] <= 41 * (1 + 1e-9)
    assert found["vectors"] < 60  # 35 were met


@pytest.mark.parametrize("solver", [hg.GradientDescent(lr=0.05), hg.Adam(lr=0.05)], ids=["gradient descent", "adam"])
def test_the_memory_of_forward_mode_is_flat_in_the_steps(solver):
    problem, peaks = hg.Ridge(synthetic(0, n=60, p=40), per_feature=True), {}
    for kind in (hg.Forward, hg.Unrolled):
        for steps in (10, 80):
            estimator = kind(solver=solver, inner_steps=steps)
            with PeakBytes() as alive:
                estimator.estimate(problem, problem.init_hparams(), problem.init_params())
            peaks[kind, steps] = alive.peak
    assert peaks[hg.Forward, 80] <= 1.01 * peaks[hg.Forward, 10]
    assert peaks[hg.Unrolled, 80] >= peaks[hg.Unrolled, 10] + 70 * 40 * 8  # a state of each step, at least
