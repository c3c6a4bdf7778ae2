"""vittles and JAX on the problems of benchmarks.taylor, in an interpreter that has them.

with_vittles.py DATA.npz CLOCK, where CLOCK is a function of the module `time`.

It says {"contestants": {name: orders}, "compiling": {name: seconds}}, hears {"contestant", "order", "calls", "result"}
and says {"seconds": mean time of a call} once the last derivative is in the file `result`, or of a construction for
order 0; one JSON object per line.
"""
# pyright: reportMissingImports=false

import importlib
import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial

import numpy as np

Work = Callable[[int], np.ndarray]


def vittles_contestant(data: dict[str, np.ndarray]) -> Work:
    """`evaluate_input_derivs` with the Hessian factorised once; of the orders up to the one asked for."""
    import autograd.numpy as anp
    import vittles

    warnings.simplefilter("ignore")
    if "A" in data:

        def objective(w, hp):  # type: ignore[reportRedeclaration]
            return 0.5 * anp.dot(w, data["A"]) @ w + anp.mean(w - 0.5) ** 5 * anp.mean(hp - 0.5) ** 5

    else:

        def objective(w, omega):
            z = anp.dot(data["X"], w)
            return anp.sum(omega * (anp.logaddexp(0.0, z) - data["y"] * z)) + 0.5 * anp.sum(w * w)

    taylor = vittles.ParametricSensitivityTaylorExpansion.optimization_objective(
        objective, data["w"], data["hp"], order=4
    )
    return lambda order: taylor.evaluate_input_derivs(data["delta"], max_order=order)[-1]


def jax_contestant(data: dict[str, np.ndarray]) -> Work:
    """The recursion on `jax.experimental.jet`, jitted for each order; the factor is made outside."""
    import jax
    import jax.numpy as jnp
    from jax.experimental.jet import jet

    jax.config.update("jax_enable_x64", True)
    data = {name: jnp.asarray(value) for name, value in data.items()}
    if "A" in data:

        def objective(w, hp):  # type: ignore[reportRedeclaration]
            return 0.5 * jnp.dot(w, data["A"] @ w) + jnp.mean(w - 0.5) ** 5 * jnp.mean(hp - 0.5) ** 5

    else:

        def objective(w, omega):
            z = data["X"] @ w
            return jnp.sum(omega * (jnp.log1p(jnp.exp(z)) - data["y"] * z)) + 0.5 * jnp.sum(w * w)

    gradient = jax.grad(objective)
    factor = jax.scipy.linalg.cho_factor(jax.hessian(objective)(data["w"], data["hp"]))

    def derivatives(order: int, delta: jax.Array) -> jax.Array:
        zero_w, zero_hp = jnp.zeros_like(data["w"]), jnp.zeros_like(delta)
        series = []
        for k in range(1, order + 1):
            w_in = [*series, zero_w]
            hp_in = [delta, *[zero_hp] * (k - 1)]
            _, found = jet(gradient, (data["w"], data["hp"]), (w_in, hp_in))
            series.append(-jax.scipy.linalg.cho_solve(factor, found[-1]))
        return series[-1]

    compiled = {order: jax.jit(lambda delta, order=order: derivatives(order, delta)) for order in range(1, 5)}
    for work in compiled.values():
        work(data["delta"]).block_until_ready()
    return lambda order: np.asarray(compiled[order](data["delta"]))


def trick_contestant(data: dict[str, np.ndarray], mode: str) -> Work:
    """Martin Jankowiak's primitive in autograd, which differentiates itself, as in the notebook."""
    import autograd
    import autograd.numpy as anp
    from autograd.extend import defjvp, defvjp, primitive
    from vittles.sensitivity_lib import _append_jvp

    def objective(w, hp):
        return 0.5 * anp.dot(w, data["A"]) @ w + anp.mean(w - 0.5) ** 5 * anp.mean(hp - 0.5) ** 5

    hessian = autograd.hessian(objective, 0)
    cross = autograd.jacobian(autograd.grad(objective, 0), 1)
    w, hp, delta = data["w"], data["hp"], data["delta"]

    @primitive
    def optimum(hp):
        return w

    def pull(ans, hp):
        return lambda g: -(cross(optimum(hp), hp).T @ anp.linalg.solve(hessian(optimum(hp), hp), g)).T

    def push(g, ans, hp):
        return -(anp.linalg.solve(hessian(optimum(hp), hp), cross(optimum(hp), hp)) @ g)

    defvjp(optimum, pull)
    defjvp(optimum, push)
    if mode == "reverse":
        first = autograd.jacobian(optimum)
        second = autograd.jacobian(first)
        return lambda order: first(hp) @ delta if order == 1 else second(hp) @ delta @ delta
    jvps = [optimum]
    for _ in range(4):
        jvps.append(_append_jvp(jvps[-1]))
    return lambda order: jvps[order](hp, *[delta] * order)


def main() -> None:
    """Answer requests until the input ends."""
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints is no reply
    clock: Callable[[], float] = getattr(time, sys.argv[2])
    with np.load(sys.argv[1]) as saved:
        data = dict(saved)
    for module in ("vittles", "jax.experimental.jet"):  # whose import is no part of the construction
        importlib.import_module(module)
    builders: dict[str, Callable[[], Work]] = {"vittles": lambda: vittles_contestant(data)}
    orders = {"vittles": [1, 2, 3, 4], "JAX Taylor mode, jitted": [1, 2, 3, 4]}
    if "A" in data:
        builders["the primitive trick in autograd, forward"] = lambda: trick_contestant(data, "forward")
        builders["the primitive trick in autograd, reverse"] = lambda: trick_contestant(data, "reverse")
        orders |= {name: [1, 2, 3, 4] if name.endswith("forward") else [1, 2] for name in builders if "trick" in name}
    begin = time.perf_counter()
    contestants = {"JAX Taylor mode, jitted": jax_contestant(data)}
    compiling = {"JAX Taylor mode, jitted": time.perf_counter() - begin}
    contestants |= {name: build() for name, build in builders.items()}
    print(json.dumps({"contestants": orders, "compiling": compiling}), file=replies)
    for line in sys.stdin:
        request = json.loads(line)
        name, order = request["contestant"], request["order"]
        work: Callable[[], object] = partial(contestants[name], order) if order else builders[name]
        begin = clock()
        for _ in range(request["calls"] - 1):
            work()
        found = work()
        seconds = (clock() - begin) / request["calls"]
        if order:
            np.save(request["result"], np.asarray(found))
        print(json.dumps({"seconds": seconds}), file=replies)


if __name__ == "__main__":
    main()
