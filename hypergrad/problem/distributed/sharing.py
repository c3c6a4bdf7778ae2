"""What is not compiled where several processes share a problem."""

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
