"""What a step does on another device: how often the host waits, what is drawn, and whether bits repeat."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import pytest
import torch
from moved import PROBLEMS, convolutions, supervised, with_dropout
from synchronisations import Synchronisations
from torch.utils._pytree import tree_leaves

import hypergrad as hg
from hypergrad.core.autodiff import flatten
from hypergrad.training.dynamics import Dynamics

MOMENTUM = hg.Momentum(lr=0.05, momentum=0.7)


@contextmanager
def without_waiting(device: torch.device) -> Iterator[None]:
    """Fail at the first operation for which the host waits for the device."""
    if device.type == "cuda":
        before = torch.cuda.get_sync_debug_mode()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch says once that this mode is a prototype
            torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode(before)
    else:
        with Synchronisations() as met:
            yield
        assert not met.operations


STEPS: dict[str, Callable[[], hg.Supervised]] = {
    "whole": supervised,
    "a penalty per weight": lambda: supervised(hyperparameters={"l2": hg.L2(init=0.05, per="weight")}),
    "convolutions": convolutions,
}


@pytest.mark.parametrize("solver", [hg.GradientDescent(lr=0.05), MOMENTUM, hg.Adam(lr=0.01)], ids=repr)
@pytest.mark.parametrize("problem", STEPS)
def test_training_steps_wait_for_nothing(device, problem, solver):
    made = STEPS[problem]().to(device)
    dynamics = Dynamics(made, solver, made.init_hparams())
    state = dynamics.advance(solver.init(made.init_params()), range(2))
    with without_waiting(device):
        dynamics.advance(state, range(2, 6))


def test_dropout_draws_the_same_at_the_same_step(device):
    problem = with_dropout(batch_size=5).to(device)
    w, h = problem.init_params(), problem.init_hparams()

    def loss(step):
        return problem.inner_loss(w, h, problem.inner_batch(step)).item()

    before = [loss(step) for step in range(4)]
    torch.manual_seed(9)
    torch.rand(3, device=device)
    assert [loss(step) for step in range(4)] == before
    assert len(set(before)) == 4


@pytest.mark.parametrize("tape", [hg.Store(), hg.Checkpoint(slots=2), hg.Reversible()], ids=repr)
def test_tapes_see_the_same_draws_as_training(device, tape):
    problem = with_dropout(batch_size=5).to(device)
    found, right = (
        hg.Unrolled(solver=MOMENTUM, inner_steps=5, tape=one).estimate(
            problem, problem.init_hparams(), problem.init_params()
        )
        for one in (tape, hg.Graph())
    )
    assert torch.allclose(flatten(found.grad), flatten(right.grad), rtol=1e-8, atol=1e-12)


def test_batches_are_the_same_rows(device):
    here = PROBLEMS["batches"]()
    batches = [here.inner_batch(step) for step in range(5)]
    there = here.to(device)
    for step, batch in enumerate(batches):
        again = there.inner_batch(step)
        for x, y in zip(tree_leaves(batch), tree_leaves(again), strict=True):
            assert not isinstance(x, torch.Tensor) or torch.equal(x, y.cpu())


@pytest.mark.parametrize(
    "make", [convolutions, with_dropout, PROBLEMS["attention"]], ids=["conv", "dropout", "attention"]
)
def test_training_backwards_returns_to_the_bits_of_the_start(device, make):
    problem = make().to(device)
    estimator = hg.Unrolled(solver=MOMENTUM, inner_steps=4, tape=hg.Reversible())
    found = [estimator.estimate(problem, problem.init_hparams(), problem.init_params()).grad for _ in range(2)]
    assert torch.equal(*(flatten(grad) for grad in found))


@pytest.mark.gpu
def test_compiled_steps_are_those_of_the_cpu(cuda):
    problem = supervised()
    estimator = partial(hg.Unrolled, solver=MOMENTUM, inner_steps=20, tape=hg.Store())
    right = estimator().estimate(problem, problem.init_hparams(), problem.init_params())
    problem.to(cuda)
    found = estimator(compile=True).estimate(problem, problem.init_hparams(), problem.init_params())
    assert torch.allclose(flatten(found.grad).cpu(), flatten(right.grad), rtol=1e-9, atol=1e-12)


@pytest.mark.gpu
def test_states_that_are_moved_to_the_cpu_give_the_same_bits(cuda):
    problem = supervised().to(cuda)
    kept, moved = (
        hg.Unrolled(solver=MOMENTUM, inner_steps=20, tape=tape).estimate(
            problem, problem.init_hparams(), problem.init_params()
        )
        for tape in (hg.Store(), hg.Store(offload="cpu"))
    )
    assert torch.equal(flatten(kept.grad), flatten(moved.grad))


@pytest.mark.gpu
def test_streamed_rows_are_those_in_memory(cuda):
    examples = torch.utils.data.TensorDataset(torch.randn(24, 4), torch.arange(24) % 3)
    grads = []
    for streams in (False, True):
        torch.manual_seed(0)
        problem = supervised(torch.nn.Linear(4, 3), train=examples, batch_size=6, stream=streams).to(cuda)
        estimator = hg.Unrolled(solver=MOMENTUM, inner_steps=8)
        grads.append(flatten(estimator.estimate(problem, problem.init_hparams(), problem.init_params()).grad))
    assert torch.equal(*grads)
