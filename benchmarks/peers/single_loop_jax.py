"""JAX: SOBA as one jitted scan, on the two bilevel problems."""
# pyright: reportMissingImports=false

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers.protocol import Work, serve


def load(arrays: dict[str, np.ndarray]) -> dict[str, tuple[Work, int]]:
    """The contestant, compiled at its first call; the budget is the number of steps, the scale that of w, v and u."""
    jax.config.update("jax_enable_x64", True)
    names = ("X", "Y", "X_dev", "Y_dev", "w", "u")
    data = {name: jnp.asarray(arrays[name]) for name in names}
    batches = jnp.asarray(arrays["batches"])
    compiled = jax.jit(partial(soba, logistic=bool(arrays["logistic"]), rows=int(arrays["batch_size"])))

    def work(budget: int, scale: float) -> np.ndarray:
        return np.asarray(compiled(data, batches[:budget], scale))

    return {"JAX, scan": (work, 0)}


def soba(data: dict[str, jax.Array], batches: jax.Array, lr: float, *, logistic: bool, rows: int) -> jax.Array:
    """u after the steps whose inner and outer batches are the rows of `batches`."""

    def cross_entropy(w: jax.Array, X: jax.Array, Y: jax.Array) -> jax.Array:
        return -jax.nn.log_sigmoid(Y * (X @ w)).mean()

    def quadratic(w: jax.Array, u: jax.Array, X: jax.Array, Y: jax.Array) -> jax.Array:
        (x, b, c), (s, a, d) = (X @ w).T, (Y @ u).T
        return (x * x / 2 + s * s / 2 + a * b + c + d).mean()

    def inner(w: jax.Array, u: jax.Array, X: jax.Array, Y: jax.Array) -> jax.Array:
        return cross_entropy(w, X, Y) + (jnp.exp(u) * w * w).sum() / 2 if logistic else quadratic(w, u, X, Y)

    def outer(w: jax.Array, u: jax.Array, X: jax.Array, Y: jax.Array) -> jax.Array:
        return cross_entropy(w, X, Y) if logistic else quadratic(w, u, X, Y)

    def step(state, batch):
        w, v, u = state
        X, Y = (jax.lax.dynamic_slice_in_dim(data[name], batch[0] * rows, rows) for name in ("X", "Y"))
        X_dev, Y_dev = (jax.lax.dynamic_slice_in_dim(data[name], batch[1] * rows, rows) for name in ("X_dev", "Y_dev"))
        D_w, pull = jax.vjp(lambda w, u: jax.grad(inner)(w, u, X, Y), w, u)
        (Hv, mixed), (f_w, f_u) = pull(v), jax.grad(outer, (0, 1))(w, u, X_dev, Y_dev)
        return (w - lr * D_w, v - lr * (Hv + f_w), u - lr * (mixed + f_u)), None

    return jax.lax.scan(step, (data["w"], jnp.zeros_like(data["w"]), data["u"]), batches)[0][2]


def note() -> str:
    """Versions, and what is not timed."""
    return f"jax {jax.__version__}; compiled in its first call for a number of steps, which is not counted"


if __name__ == "__main__":
    serve(load, note)
