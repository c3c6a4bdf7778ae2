"""Compiled steps as CUDA graphs, by recordings on the CPU that overwrite earlier results as a replay on a GPU does."""

from typing import Any

import pytest
import torch
from runs import STEPS, case
from slow_cases import mostly_slow
from tables import relative_error
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import hypergrad as hg
from hypergrad.compile import cuda_graph, inductor, loop
from hypergrad.core.autodiff import leaves
from hypergrad.training.compile_steps import compile_steps
from hypergrad.training.dynamics import Dynamics
from hypergrad.training.step_inputs import StepTable

TAPES = [hg.Graph(), hg.Store(), hg.Checkpoint(), hg.Checkpoint(slots=1)]


class Recorder:
    """Records functions on the CPU: each replay makes NaN of all results of all replays before it."""

    def __init__(self):
        self.results, self.bodies, self.replays = [], 0, 0

    def record(self, function, device):
        results = function()
        self.results += tree_leaves(results)

        def replay():
            self.replays += 1
            bodies = self.bodies
            found = [x.clone() for x in tree_leaves(function())]
            self.bodies = bodies
            for x in self.results:
                x.fill_(torch.nan)
            for x, y in zip(tree_leaves(results), found, strict=True):
                x.copy_(y)

        return replay, results

    def compile_graph(self, graph, arguments):
        def run(tensors):
            self.bodies += 1
            return graph(*tensors)

        return run


@pytest.fixture
def recorder(monkeypatch):
    found = Recorder()
    monkeypatch.setattr(cuda_graph, "record", found.record)
    monkeypatch.setattr(loop, "common_gpu", lambda tensors: tensors[0].device)
    monkeypatch.setattr(inductor, "compile_graph", found.compile_graph)
    return found


@pytest.mark.parametrize("tape", TAPES, ids=repr)
@pytest.mark.parametrize("solver", mostly_slow(["momentum", "adam"], ["momentum"]))
def test_results_that_are_overwritten_were_copied_before(recorder, solver, tape):
    problem, solver, hparams, start = case("network", solver)
    settings: dict[str, Any] = {"solver": solver, "inner_steps": STEPS - 1}
    eager = hg.Unrolled(**settings).estimate(problem, hparams, start)
    for _ in range(2):
        found = hg.Unrolled(tape=tape, compile=True, **settings).estimate(problem, hparams, start)
        assert found.stats["training_remark"] == "compiled, 10 steps in a call, as a CUDA graph"
        assert relative_error(found.grad, eager.grad) <= 1e-10
        assert relative_error(found.params, eager.params) <= 1e-12
    assert recorder.replays > 0


def test_forward_mode(recorder):
    problem, solver, hparams, start = case("network", "nesterov")
    found, eager = (
        hg.Forward(solver=solver, inner_steps=STEPS + 5, compile=compile).estimate(problem, hparams, start)
        for compile in (True, False)
    )
    assert found.stats["training_remark"] == "compiled, 8 steps in a call, as a CUDA graph"
    assert relative_error(found.grad, eager.grad) <= 1e-10


def test_two_runs_at_different_hyperparameters_do_not_meet(recorder):
    """The values that the steps of a run share are those of its λ, although both runs use one recording."""
    problem, solver, hparams, start = case("network", "momentum")
    others = {name: 0.9 * x for name, x in hparams.items()}
    runs = [Dynamics(problem, solver, leaves(hp)) for hp in (hparams, others)]
    wanted: Any = [(run, run.passage(solver.start(problem, start, run.hparams), range(6))) for run in runs]
    ready = [compile_steps(run, solver.start(problem, start, run.hparams), range(12))[0] for run in runs]
    passages: Any = [run.passage(solver.start(problem, start, run.hparams), range(6)) for run in ready]
    for (end, passage), (_, (right, way)) in zip(passages, wanted, strict=True):
        assert relative_error(end["params"], right["params"]) <= 1e-12
        adjoint = {group: {name: torch.ones_like(x) for name, x in xs.items()} for group, xs in right.items()}
        (pulled, (term,)), (back, terms) = passage.pull_back(adjoint), way.pull_back(adjoint)
        assert relative_error(pulled["params"], back["params"]) <= 1e-10
        assert relative_error({"l2": term["l2"]}, {"l2": torch.stack([each["l2"] for each in terms]).sum(0)}) <= 1e-10


class Counted(TorchDispatchMode):
    """Counts the operations that are called from Python, by name."""

    def __init__(self):
        super().__init__()
        self.counts = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        self.counts[name] = self.counts.get(name, 0) + 1
        return func(*args, **(kwargs or {}))


def test_a_replayed_run_waits_for_nothing_and_copies_once_a_call(recorder):
    problem, solver, hparams, start = case("quadratic", "gradient descent")
    hparams = hparams | {"lr": torch.linspace(0.01, 0.05, 40)}
    dynamics, state = Dynamics(problem, solver, leaves(hparams)), solver.start(problem, start, hparams)
    ready: Any = compile_steps(dynamics, state, range(40))[0]
    ready.advance(state, range(40))
    launched = []
    for replay in ready.forward.loop._replays.values():
        replay._replay = lambda: launched.append(1)  # one launch, as on a GPU; the values are not looked at
    bodies = recorder.bodies
    with Counted() as counted:
        ready.advance(state, range(40))
    assert (recorder.bodies, len(launched)) == (bodies, 4)
    counts = counted.counts
    assert counts["_foreach_copy_"] == 4
    assert counts["clone"] == len(state["params"])
    assert not {"_local_scalar_dense", "lift_fresh", "stack", "_to_copy"} & set(counts)


def test_tables_are_on_the_device_of_the_hyperparameters():
    with FakeTensorMode():
        hparams = {"lr": torch.ones(8, device="cuda"), "beta": torch.ones((), device="cuda")}
        problem: Any = None
        solver = hg.Momentum(
            lr="lr", momentum=hg.Cosine(base="beta", steps=8), weight_decay=hg.Cosine(base=0.1, steps=8)
        )
        table = StepTable.of(Dynamics(problem, solver, hparams), range(8))
        tensors = [x for x in tree_leaves((table.t, table.numbers, table.tuned)) if isinstance(x, torch.Tensor)]
        assert len(tensors) == 5
        assert cuda_graph.common_gpu(tensors) == hparams["lr"].device
        assert cuda_graph.common_gpu([*tensors, torch.ones(3)]) is None


def test_results_of_single_calls_are_copied(recorder, monkeypatch):
    monkeypatch.setattr(cuda_graph, "common_gpu", lambda tensors: tensors[0].device)
    scale, data = torch.tensor(3.0), torch.arange(4.0)
    call = cuda_graph.replaying(lambda scale, x: [scale * x + data, x.sum()], [scale], [data])
    first, second = call(torch.ones(4)), call(2 * torch.ones(4))
    for (y, total), x in ((first, 1.0), (second, 2.0)):
        assert torch.equal(y, 3 * x + data)
        assert total == 4 * x
    assert recorder.replays == 2
