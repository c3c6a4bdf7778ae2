"""JAX: grad through a jitted scan that keeps all activations, and one that recomputes them from √T states."""
# pyright: reportMissingImports=false

import json
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers.protocol import Work, serve
from benchmarks.peers.with_jaxopt import cross_entropy, logits


def load(arrays: dict[str, np.ndarray]) -> dict[str, tuple[Work, int]]:
    """The contestants, compiled at their first call; the budget is the number of steps."""
    jax.config.update("jax_enable_x64", True)
    shapes = json.loads(str(arrays["shapes"]))
    data = {name: jnp.asarray(arrays[name]) for name in ("X", "y", "X_dev", "y_dev", "w", "l2")}
    lr, momentum = arrays["lr"].item(), arrays["momentum"].item()

    def contestant(segmented: bool) -> tuple[Work, int]:
        compiled = jax.jit(
            partial(hypergradient, shapes=shapes, lr=lr, momentum=momentum, segmented=segmented),
            static_argnames="num_steps",
        )

        def work(budget: int, scale: float) -> np.ndarray:
            return np.asarray(compiled(data, num_steps=budget))

        return work, 0

    return {"JAX, scan": contestant(False), "JAX, scan with checkpoints": contestant(True)}


def hypergradient(
    data: dict[str, jax.Array], *, num_steps: int, shapes: list[list[int]], lr: float, momentum: float, segmented: bool
) -> jax.Array:
    """dF/dλ through the whole run."""

    def inner(w: jax.Array, l2: jax.Array) -> jax.Array:
        return cross_entropy(logits(shapes, w, data["X"]), data["y"]) + (l2 * w * w).sum() / 2

    def outer(l2: jax.Array) -> jax.Array:
        def step(state, _):
            w, v = state
            v = momentum * v + jax.grad(inner)(w, l2)
            return (w - lr * v, v), None

        def segment(state, _):
            return jax.lax.scan(step, state, length=length)

        length = next(k for k in range(math.isqrt(num_steps), 0, -1) if num_steps % k == 0) if segmented else 1
        advance = jax.checkpoint(segment) if segmented else step
        (w, _), _ = jax.lax.scan(advance, (data["w"], jnp.zeros_like(data["w"])), length=num_steps // length)
        return cross_entropy(logits(shapes, w, data["X_dev"]), data["y_dev"])

    return jax.grad(outer)(data["l2"])


def note() -> str:
    """Versions, and what is not timed."""
    return f"jax {jax.__version__}; each is compiled in its first call, which is not counted"


if __name__ == "__main__":
    serve(load, note)
