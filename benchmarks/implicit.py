"""One implicit hypergradient with K products of CG, next to what one would write by hand.

python -m benchmarks.implicit
"""

from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, softmax

import hypergrad as hg
from benchmarks.measure import THREADS, Work, compare
from benchmarks.softmax import SoftmaxRegression
from hypergrad.solver.training import train


def make(num_products: int, name: str) -> Work:
    """The contestant of a name, at the solution of the inner problem."""
    problem = SoftmaxRegression()
    hparams = problem.init_hparams()
    W = train(problem, hg.Momentum(lr=0.5), hparams, problem.init_params(), max_steps=3000, tol=1e-10).params["W"]
    if name.startswith("hypergrad"):
        cg = hg.CG(max_iter=num_products, tol=0.0)
        estimator = hg.Implicit(linsolve=cg, inner_steps=0, error_bar=name == "hypergrad, with error bar")
        return lambda: estimator.estimate(problem, hparams, {"W": W}).grad["l2"]
    by_name = {"by hand, retained graph": by_hand, "closed-form product": closed_form}
    return partial(by_name[name], problem, hparams["l2"], W, num_products)


def by_hand(problem: SoftmaxRegression, l2: Tensor, W: Tensor, num_products: int) -> Tensor:
    """CG on products from one retained graph: the shortest loop anyone would write."""
    W, l2 = W.detach().requires_grad_(), l2.detach().requires_grad_()
    inner = cross_entropy(problem.X @ W, problem.y) + (l2 * W * W).sum() / 2
    (g,) = torch.autograd.grad(inner, W, create_graph=True)
    (b,) = torch.autograd.grad(cross_entropy(problem.X_dev @ W, problem.y_dev), W)
    v = conjugate_gradient(lambda p: torch.autograd.grad(g, W, p, retain_graph=True)[0], b, num_products)
    return -torch.autograd.grad(g, l2, v)[0]


def closed_form(problem: SoftmaxRegression, l2: Tensor, W: Tensor, num_products: int) -> Tensor:
    """CG on the Hessian product of softmax regression written out: Xᵀ(P∘(XV − rowsum(P∘XV)))/n + λ∘V."""
    X, n = problem.X, len(problem.X)
    P = softmax(X @ W, dim=1)
    residual = softmax(problem.X_dev @ W, dim=1)
    residual[torch.arange(len(residual)), problem.y_dev] -= 1
    b = problem.X_dev.T @ residual / len(residual)

    def product(V: Tensor) -> Tensor:
        Z = X @ V
        return X.T @ (P * (Z - (P * Z).sum(1, keepdim=True))) / n + l2 * V

    return -W * conjugate_gradient(product, b, num_products)


def conjugate_gradient(product, b: Tensor, num_products: int) -> Tensor:
    """Textbook CG from zero, without a look at anything."""
    x, r, p = torch.zeros_like(b), b.clone(), b.clone()
    rr = (r * r).sum()
    for _ in range(num_products):
        Ap = product(p)
        alpha = rr / (p * Ap).sum()
        x = x + alpha * p
        r = r - alpha * Ap
        rr, previous = (r * r).sum(), rr
        p = r + rr / previous * p
    return x


def main() -> None:
    """Print one table per number of products."""
    torch.set_num_threads(THREADS)
    torch.set_default_dtype(torch.float64)
    names = ["by hand, retained graph", "closed-form product", "hypergrad", "hypergrad, with error bar"]
    for num_products in (10, 50):
        compare(
            f"implicit hypergradient, softmax regression on digits, 640 penalties, K = {num_products}",
            partial(make, num_products),
            names,
            reference=names[0],
            truth="closed-form product",
            repeats=101,
        )


if __name__ == "__main__":
    main()
