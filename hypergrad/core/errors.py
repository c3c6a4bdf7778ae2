"""What hypergrad raises when a number would have been meaningless, and warns of when it is merely inexact."""


class HypergradError(RuntimeError):
    """Base of every error that hypergrad raises about a computation (bad arguments are ValueError or TypeError)."""


class NonFiniteError(HypergradError):
    """A loss, gradient or matrix product is NaN or infinite."""


class DivergenceError(HypergradError):
    """Training, or a series of products, grows instead of settling."""


class IndefiniteError(HypergradError):
    """A solver for positive definite systems met a direction that does not curve upwards."""


class FixedPointOverflowError(HypergradError):
    """A value would leave the range of the fixed-point numbers that training runs on."""


class ReversalError(HypergradError):
    """Training that was run backwards did not arrive where it had started."""


class UnusedHyperparameterError(HypergradError):
    """Nothing that the estimator can see depends on a hyperparameter."""


class CheckpointError(ValueError):
    """A file on disk cannot continue this run."""


class Terminated(KeyboardInterrupt):
    """The process was asked to end by SIGTERM."""


class NotConvergedWarning(UserWarning):
    """The hypergradient is inexact: the inner problem or the adjoint system was not solved to tolerance."""


class ExtrapolationWarning(UserWarning):
    """A Taylor expansion was evaluated further away than its terms suggest that it converges."""


class NoTaylorRuleWarning(UserWarning):
    """An operation was expanded by nested forward mode, which is correct and slow."""


class NotCompiledWarning(UserWarning):
    """What was to be compiled cannot be, and runs as it is, slower."""


class NotOptimalError(HypergradError):
    """Parameters that are said to solve the inner problem do not."""
