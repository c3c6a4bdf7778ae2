import pytest
import torch
from tables import PROBLEMS

import hypergrad as hg
from hypergrad.solver.base import InnerSolver
from hypergrad.solver.training import train

SOLVERS: dict[str, tuple[InnerSolver, dict[str, float]]] = {
    "gradient descent": (hg.GradientDescent(lr=0.03), {"lr": 0.03}),
    "momentum": (hg.Momentum(lr=0.02, momentum=0.8), {"lr": 0.02, "momentum": 0.8}),
}


@pytest.mark.parametrize(("solver", "theirs"), SOLVERS.values(), ids=SOLVERS)
def test_the_update_is_that_of_torch_optim(solver, theirs):
    problem = PROBLEMS["quadratic"]
    hparams = problem.init_hparams()
    state = solver.init(problem.init_params())
    reference = {name: w.clone().requires_grad_() for name, w in problem.init_params().items()}
    optimizer = torch.optim.SGD(list(reference.values()), **theirs)
    for t in range(100):
        with torch.no_grad():
            state = solver.step(problem, state, hparams, t)
        optimizer.zero_grad()
        problem.inner_loss(reference, hparams, None).backward()
        optimizer.step()
    for name, w in solver.params(state).items():
        assert torch.allclose(w, reference[name].detach(), rtol=1e-12)


@pytest.mark.parametrize("solver", [solver for solver, _ in SOLVERS.values()], ids=SOLVERS)
def test_no_graph_is_kept_without_grad_mode(solver):
    problem = PROBLEMS["quadratic"]
    hparams = {name: value.requires_grad_() for name, value in problem.init_hparams().items()}
    with torch.no_grad():
        state = solver.step(problem, solver.init(problem.init_params()), hparams, 0)
    assert not any(w.requires_grad for tensors in state.values() for w in tensors.values())


def test_training_stops_at_its_tolerance_relative_to_the_initial_parameters():
    problem = PROBLEMS["ridge"]
    hparams, start = problem.init_hparams(), problem.init_params()
    first_norm = torch.cat(list(problem.optimality(start, hparams, None).values())).norm().item()
    trained = train(problem, hg.GradientDescent(lr=0.1), hparams, start, max_steps=5000, tol=1e-6, check_every=1)
    assert trained.status == "converged"
    assert trained.end.grad_norm <= 1e-6 * first_norm
    # one step less would not have been enough, and a start at the solution takes none, whatever its own gradient
    before = train(problem, hg.GradientDescent(lr=0.1), hparams, start, max_steps=trained.steps - 1, tol=1e-6)
    assert before.status == "max_iter"
    again = train(problem, hg.GradientDescent(lr=0.1), hparams, trained.params, max_steps=5000, tol=1e-6)
    assert again.steps == 0
