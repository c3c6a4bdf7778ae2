"""A compiled expansion is the plain one, or says why it is not compiled."""

import gc
import weakref

import pytest
import torch
from optima import LOGISTIC, SEED, logistic_objective, seed_objective

import hypergrad as hg
from hypergrad.compile.cache import WeakCache
from hypergrad.compile.inductor import InductorProgram
from hypergrad.core.torch_internals import inductor
from hypergrad.sensitivity import compiled_expansion


@pytest.fixture
def as_traced(monkeypatch):
    """Runs the trace without a compiler."""
    monkeypatch.setattr(inductor, "compile_fx_inner", lambda graph, inputs: lambda tensors: graph(*tensors))


def both(objective, w0, hpar0, **settings):
    return (hg.TaylorExpansion(compile=c, **settings).at(objective, w0, hpar0) for c in (True, False))


@pytest.mark.parametrize("optimum", [SEED, LOGISTIC], ids=["seed", "logistic"])
@pytest.mark.parametrize("order", [1, 3])
def test_a_traced_expansion_is_the_plain_one(as_traced, optimum, order):
    objective, solve, hpar0, delta = optimum
    fast, plain = both(objective, solve(hpar0), hpar0, order=order)
    for direction in (delta, -2 * delta.flip(0), torch.stack([delta, 3 * delta])):
        for a, b in zip(fast.derivatives(direction), plain.derivatives(direction), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-13)
    torch.testing.assert_close(fast.predict(hpar0 + 0.01 * delta), plain.predict(hpar0 + 0.01 * delta))


def test_it_is_traced_once_for_a_function_and_follows_the_point(as_traced, monkeypatch):
    objective, solve, hpar0, delta = LOGISTIC
    traced, make = [], compiled_expansion.trace
    monkeypatch.setattr(compiled_expansion, "trace", lambda *arguments: traced.append(1) or make(*arguments))
    monkeypatch.setattr(compiled_expansion, "_COMPILED", WeakCache())
    for shift in (0.0, 0.2, 0.4):
        fast, plain = both(objective, solve(hpar0 + shift), hpar0 + shift, order=2)
        for a, b in zip(fast.derivatives(delta), plain.derivatives(delta), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-13)
    assert len(traced) == 1


def test_what_was_compiled_goes_with_the_function(as_traced):
    _, solve, hpar0, delta = SEED

    def objective(w, hp):
        return seed_objective(w, hp)

    hg.TaylorExpansion(compile=True).at(objective, solve(hpar0), hpar0).derivatives(delta)
    gone = weakref.ref(objective)
    assert objective in compiled_expansion._COMPILED._entries
    del objective
    gc.collect()
    assert gone() is None


def test_data_that_changed_since_the_trace_is_found_out(as_traced):
    _, solve, ones, delta = LOGISTIC
    state = {"scale": torch.tensor(1.0)}

    def objective(w, weights):
        return logistic_objective(w, state["scale"] * weights)

    hg.TaylorExpansion(compile=True).at(objective, solve(ones), ones).derivatives(delta)
    state["scale"] = torch.tensor(2.0)
    fast, plain = both(objective, solve(2 * ones), ones)
    with pytest.warns(hg.NotCompiledWarning, match="its first term 1 was off by"):
        found = fast.derivatives(delta)
    for a, b in zip(found, plain.derivatives(delta), strict=True):
        assert torch.equal(a, b)


def reads_a_value(w, hp):
    return seed_objective(w, hp) * (1.0 if hp.detach().sum().item() < 9 else 2.0)


def no_compiler(*args, **kwargs):
    raise RuntimeError("no compiler")


@pytest.mark.parametrize(
    ("objective", "break_it", "reason"),
    [
        (reads_a_value, lambda m: None, "RuntimeError: .*tracing"),
        (seed_objective, lambda m: m.setattr(compiled_expansion, "_LARGEST_DENSE", 3), "inverse Hessian"),
        (
            seed_objective,
            lambda monkeypatch: monkeypatch.setattr(inductor, "compile_fx_inner", no_compiler),
            "RuntimeError",
        ),
    ],
    ids=["value", "size", "compiler"],
)
def test_what_cannot_be_compiled_runs_as_it_is_and_says_so(monkeypatch, objective, break_it, reason):
    _, solve, hpar0, delta = SEED
    monkeypatch.setattr(compiled_expansion, "_COMPILED", WeakCache())
    break_it(monkeypatch)
    fast, plain = both(objective, solve(hpar0), hpar0)
    with pytest.warns(hg.NotCompiledWarning, match=f"is not compiled, and runs as it is: .*{reason}"):
        found = fast.derivatives(delta)
    for a, b in zip(found, plain.derivatives(delta), strict=True):
        assert torch.equal(a, b)


@pytest.mark.slow
@pytest.mark.parametrize("optimum", [SEED, LOGISTIC], ids=["seed", "logistic"])
def test_a_compiled_expansion_is_the_plain_one(optimum):
    objective, solve, hpar0, delta = optimum
    fast, plain = both(objective, solve(hpar0), hpar0, order=4)
    for direction in (delta, -2 * delta.flip(0)):
        for a, b in zip(fast.derivatives(direction), plain.derivatives(direction), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-13)
    assert [type(made) for made in compiled_expansion._COMPILED._entries[objective].values()] == [InductorProgram]
