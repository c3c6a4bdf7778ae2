"""Whether several processes share a problem, and what is not compiled then."""

from hypergrad.compile.tracing import CannotCompileError
from hypergrad.problem.base import InnerProblem
from hypergrad.problem.distributed.data_parallel import DataParallel

SHARED = "{} processes share the problem, and each would compile for itself: run one process, or set compile=False"


def num_processes(problem: InnerProblem) -> int:
    """How many processes share a problem, or one that it wraps."""
    return max((part.ranks.world for part in problem.modules() if isinstance(part, DataParallel)), default=1)


def require_one_process(problem: InnerProblem) -> None:
    """Require that this process has the problem to itself.

    Whether a compiler succeeds, and when it pays, may differ between processes. They would then no longer take part in
    the same sums, and wait for each other without end.

    Raises:
        CannotCompileError: if it does not.
    """
    num = num_processes(problem)
    if num > 1:
        raise CannotCompileError(SHARED.format(num))
