"""Functions compiled by Inductor: constants are arguments of the code, which is kept for other processes."""

import torch

from hypergrad.compile.inductor import InductorProgram, compile_with_inductor

X = torch.linspace(-1, 1, 8 * 3, dtype=torch.float64).sin().view(8, 3)
V = torch.linspace(0, 2, 3 * 2, dtype=torch.float64).view(3, 2)


def program(data: torch.Tensor) -> InductorProgram:
    return compile_with_inductor(lambda v: [data.t() @ (data @ v).tanh() + (data.t() @ v.new_ones(8, 2))], [], [V])


def test_code_is_found_again_for_other_constants():
    from torch._dynamo.utils import counters

    program(X)
    before = dict(counters["inductor"])
    again = program(3 * X)
    met = {name: counters["inductor"][name] - before.get(name, 0) for name in counters["inductor"]}
    assert (met.get("fxgraph_cache_hit", 0), met.get("fxgraph_cache_bypass", 0)) == (1, 0)
    wanted = 3 * X.t() @ (3 * X @ V).tanh() + 3 * X.t() @ torch.ones(8, 2, dtype=torch.float64)
    torch.testing.assert_close(again.run(*again.prepare(), V)[0], wanted, rtol=1e-13, atol=1e-13)


def test_constants_are_read_at_each_call_and_once():
    data = X.clone()
    compiled = program(data)
    data.mul_(2)
    assert len(compiled.prepare()) == 1
    wanted = 2 * X.t() @ (2 * X @ V).tanh() + 2 * X.t() @ torch.ones(8, 2, dtype=torch.float64)
    torch.testing.assert_close(compiled.run(*compiled.prepare(), V)[0], wanted, rtol=1e-13, atol=1e-13)
