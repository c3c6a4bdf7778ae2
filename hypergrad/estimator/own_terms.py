"""The terms of dF/dλ that processes add up once at the end of a run, and not in each step."""

from dataclasses import dataclass, replace

from hypergrad.estimator.differentiated_run import DifferentiatedRun
from hypergrad.estimator.tally import Tally
from hypergrad.problem.distributed.data_parallel import DataParallel
from hypergrad.solver.base import InnerSolver
from hypergrad.solver.coefficient import root


@dataclass(frozen=True)
class OwnTerms:
    """dF/dλ is linear in the terms of the steps, so that their sum over the processes can wait.

    That is p numbers for each estimate, and not for each step, which matters for a λ with an entry for each example.

    Hyperparameters whose rows are spread over processes are not among them: the outer loop sums their terms.

    Attributes:
        run: whose steps give each process's own terms for the hyperparameters in `names`.
        names: those that enter the losses only. A coefficient of the solver is the same computation in each process.
        problem: sums the terms; None if there is nothing to sum.
    """

    run: DifferentiatedRun
    names: frozenset[str] = frozenset()
    problem: DataParallel | None = None

    @classmethod
    def of(cls, run: DifferentiatedRun) -> "OwnTerms":
        """Those of a run on any problem."""
        problem, solver = run.dynamics.problem, run.dynamics.solver
        # A step of the user's own may compute anything from λ.
        if not (isinstance(problem, DataParallel) and problem.is_spread) or type(solver).step is not InnerSolver.step:
            return cls(run)
        used = {root(value) for value in solver.coefficients().values()}
        names = frozenset(run.dynamics.hparams) - used - problem.own_terms
        dynamics = replace(run.dynamics, problem=problem.with_own_terms(names))
        return cls(replace(run, dynamics=dynamics), names, problem)

    def sum(self, tally: Tally) -> None:
        """Add up the terms over the processes, in place, by one all-reduce."""
        if self.problem is None:
            return
        tally.merge()
        keys = [(k, name) for k, part in enumerate(tally.sums) for name in part if name in self.names]
        if keys:
            found = self.problem.ranks.total([tally.sums[k][name] for k, name in keys])
            for (k, name), x in zip(keys, found, strict=True):
                tally.sums[k][name] = x
