"""Outer steps of single-loop methods as functions of tensors, on another device."""

from functools import partial
from typing import Any

import pytest
import torch
from single_loop.least_squares import LeastSquares
from synchronisations import Synchronisations
from torch import Tensor
from torch.optim import Adam
from torch.utils._pytree import tree_leaves

import hypergrad as hg
from hypergrad.compile.tracing import CannotCompileError
from hypergrad.core.autodiff import flatten
from hypergrad.outer.joint_program import _columns
from hypergrad.outer.joint_step import Row
from hypergrad.outer.joint_steps import JointSteps

FALLING = hg.InverseRoot(base=0.1)
METHODS = {
    "schedules": hg.SOBA(solver=hg.Adam(lr=FALLING), adjoint_lr=FALLING),
    "tables": hg.SABA(solver=hg.GradientDescent(lr=0.1)),
}


def fit(method, device, **settings: Any) -> hg.Result:
    usual: dict[str, Any] = {"outer_steps": 6, "record_every": 3, "optimizer": partial(Adam, lr=0.01)}
    estimator = hg.SingleLoop(method=method, compile=True)
    problem = LeastSquares().to(device)
    return hg.Trainer(problem=problem, estimator=estimator, max_grad_norm=0.1, **usual | settings).fit()


def stepped(method, device, monkeypatch) -> tuple[list[Tensor], list[str]]:
    """The tensors after an outer step, and the operations in it for which the host waits."""
    seen = []

    def program(self, move):
        seen.append((self, move))
        raise CannotCompileError("only looked at")

    monkeypatch.setattr(JointSteps, "program", program)
    with pytest.warns(hg.NotCompiledWarning, match="only looked at"):
        fit(method, device)
    (steps, move), *_ = seen
    state, row = steps.state(), steps._row(0, 6, steps.step.update.steps_taken(), move)
    numbers, indices, *tensors = (column[0] for column in _columns([row], state.tensors[0]))
    with Synchronisations() as met, torch.no_grad():
        after = steps.step(state.unpack(state.tensors), Row(numbers, indices, tensors))
    return [x for x in tree_leaves(after) if isinstance(x, Tensor)], met.operations


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_step_is_the_same_there_and_waits_for_nothing(method, device, monkeypatch):
    here, _ = stepped(method, "cpu", monkeypatch)
    there, waits = stepped(method, device, monkeypatch)
    assert {x.device.type for x in there} == {device.type}
    assert not waits
    for x, y in zip(here, there, strict=True):
        torch.testing.assert_close(y.cpu(), x, rtol=1e-10, atol=1e-12)


@pytest.mark.gpu
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_steps_are_a_cuda_graph(method, cuda):
    here, there = (fit(method, device, outer_steps=200, record_every=100) for device in ("cpu", cuda))
    assert there.last.stats["training_remark"] == "compiled, up to 32 steps in a call, as a CUDA graph"
    torch.testing.assert_close(flatten(there.last.params).cpu(), flatten(here.last.params), rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(flatten(there.last.hparams).cpu(), flatten(here.last.hparams), rtol=1e-8, atol=1e-10)
