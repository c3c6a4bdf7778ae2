"""What several processes can share, and what is not compiled there."""

from hypergrad.compile.tracing import CannotCompileError
from hypergrad.problem.base import InnerProblem

SHARED = "several processes share the problem, and each would compile for itself; run one process, or set compile=False"


def require_one_process(problem: InnerProblem) -> None:
    """Require that this process has the problem to itself.

    Whether a compiler succeeds, and when it pays, may differ between processes. They would then no longer take part in
    the same sums, and wait for each other without end.

    Raises:
        CannotCompileError: if it does not.
    """
    if problem.is_spread:
        raise CannotCompileError(SHARED)


def require_one_rank_can(problem: InnerProblem) -> None:
    """Require a problem whose losses are sums over examples, and computed by one process.

    Raises:
        ValueError: if it is another.
    """
    if not problem.is_minimisation:
        raise ValueError(
            f"DataParallel needs an optimality condition that is the gradient of the inner loss, but "
            f"{type(problem).__name__} has one of its own, which need not be a sum over examples; run it on one "
            "process."
        )
    if problem.is_spread:
        raise ValueError(
            f"DataParallel needs a problem whose losses one process can compute, but those of this "
            f"{type(problem).__name__} are sums over processes already; leave one of the two DataParallel out."
        )
