"""A run on another device that is cut short goes on there to the same bits, and its states can be read on the CPU."""

import copy
from functools import partial

import pytest
import torch
from moved import PROBLEMS, with_dropout
from slow_cases import mostly_slow

import hypergrad as hg
from hypergrad.callback import state_file
from hypergrad.callback.state_saver import StateSaver

ADAM = partial(torch.optim.Adam, lr=0.1)
OPTIMIZERS = {
    "adam": (ADAM, {}),
    "adam in one kernel": (partial(torch.optim.Adam, lr=0.1, fused=True), {}),
    "momentum": (partial(torch.optim.SGD, lr=0.1, momentum=0.9), {"max_grad_norm": 0.5}),
    "lbfgs": (partial(torch.optim.LBFGS, line_search_fn="strong_wolfe", max_iter=2), {}),
    "lbfgsb": (hg.LBFGSB, {}),
    "plateau": (ADAM, {"scheduler": partial(torch.optim.lr_scheduler.ReduceLROnPlateau, patience=0)}),
    "acceptance": (partial(torch.optim.SGD, lr=20.0), {"acceptance": hg.Acceptance()}),
}
IMPLICIT = hg.Implicit(solver=hg.Momentum(lr=0.05), inner_tol=1e-4)
RUNS = {
    "implicit": (lambda: PROBLEMS["ridge"](), IMPLICIT),
    "draws in batches": (lambda: with_dropout(batch_size=5), hg.Unrolled(inner_steps=3)),
    "forward, online": (lambda: PROBLEMS["ridge"](), hg.Forward(inner_steps=3, online=True)),
}


def fit(problem, estimator, folder, steps, optimizer=ADAM, resume=None, **settings):
    trainer = hg.Trainer(
        problem=problem,
        estimator=estimator,
        optimizer=optimizer,
        outer_steps=steps,
        callbacks=[StateSaver(folder, keep=9)],
        **settings,
    )
    return trainer.fit(resume=resume)


def goes_on_to_the_same_bits(problem, estimator, tmp_path, optimizer=ADAM, **settings):
    """Five steps at once, and two, then three."""
    whole = fit(problem, estimator, tmp_path / "whole", 5, optimizer, **settings)
    fit(problem, estimator, tmp_path / "parts", 2, optimizer, **settings)
    after = fit(problem, estimator, tmp_path / "parts", 5, optimizer, resume=tmp_path / "parts", **settings)
    assert after.history[1].keys() == whole.history[1].keys()
    for name in whole.last.hparams:
        assert torch.equal(after.last.hparams[name], whole.last.hparams[name])
        assert after.last.hparams[name].device == whole.last.hparams[name].device
        assert torch.equal(after.trajectory[name], whole.trajectory[name])
    assert [row["loss/dev"] for row in after.history] == [row["loss/dev"] for row in whole.history]


@pytest.mark.parametrize(("optimizer", "settings"), mostly_slow(OPTIMIZERS, ["momentum"]))
def test_optimisers(device, tmp_path, optimizer, settings):
    if "fused" in repr(optimizer) and device.type != "cuda":
        pytest.skip("the kernel is of a real device")
    problem = PROBLEMS["ridge"]().to(device)
    goes_on_to_the_same_bits(problem, IMPLICIT, tmp_path, optimizer, **settings)


@pytest.mark.slow
def test_a_recorded_run(device, tmp_path):
    problem = PROBLEMS["ridge"]().to(device)
    results = [
        hg.fit(problem, IMPLICIT, ADAM, steps, folder=tmp_path / folder, progress=False, retrain=True)
        for folder, steps in (("whole", 4), ("parts", 2), ("parts", 4))
    ]
    for name, value in results[0].last.hparams.items():
        assert torch.equal(results[2].last.hparams[name], value)


@pytest.mark.parametrize(("make", "estimator"), mostly_slow(RUNS, ["draws in batches", "forward, online"]))
def test_estimators(device, tmp_path, make, estimator):
    goes_on_to_the_same_bits(make().to(device), estimator, tmp_path)


def test_a_state_goes_to_another_machine(device, tmp_path):
    """A state saved there is read where there is no such device, and goes on."""
    here = PROBLEMS["ridge"]()
    fit(copy.deepcopy(here).to(device), IMPLICIT, tmp_path, 2)
    state = torch.load(state_file.found(tmp_path)[-1], weights_only=True)
    tensors = [state[key][name] for key in ("hparams", "params", "u") for name in state[key]]
    assert {x.device.type for x in tensors} == {"cpu"}
    with pytest.warns(UserWarning, match=f"was on {device.type} until this state, and goes on on cpu"):
        after = fit(here, IMPLICIT, tmp_path, 4, resume=tmp_path)
    assert after.last.step == 4
    assert after.last.hparams["l2"].device.type == "cpu"
    right = fit(here, IMPLICIT, tmp_path / "here", 4)
    assert after.last.hparams["l2"].item() == pytest.approx(right.last.hparams["l2"].item(), rel=1e-6)


@pytest.mark.gpu
def test_the_random_states_of_all_gpus_are_restored(cuda, tmp_path):
    problem, state = PROBLEMS["ridge"]().to(cuda), {}
    torch.cuda.manual_seed_all(3)
    fit(problem, IMPLICIT, tmp_path, 2)
    drawn = [torch.rand(3, device=f"cuda:{i}") for i in range(torch.cuda.device_count())]
    torch.cuda.manual_seed_all(4)
    state = fit(problem, IMPLICIT, tmp_path, 2, resume=tmp_path)
    again = [torch.rand(3, device=f"cuda:{i}") for i in range(torch.cuda.device_count())]
    assert state.last.step == 2
    assert all(torch.equal(x, y) for x, y in zip(drawn, again, strict=True))
