"""Errors for numbers that would be meaningless, and warnings for numbers that are inexact."""


class HypergradError(RuntimeError):
    """Base of every error that hypergrad raises about a computation (bad arguments are ValueError or TypeError)."""


class NonFiniteError(HypergradError):
    """A loss, gradient or matrix product is NaN or infinite."""


class DivergenceError(HypergradError):
    """Training, or a series of products, grows instead of converging."""


class IndefiniteError(HypergradError):
    """A solver for positive definite systems met a direction without positive curvature."""


class FixedPointOverflowError(HypergradError):
    """A value would leave the range of the fixed-point numbers that training uses."""


class ReversalError(HypergradError):
    """Training that was run backwards did not return to its start."""


class UnusedHyperparameterError(HypergradError):
    """Nothing that the estimator can see depends on a hyperparameter."""


def described(error: BaseException) -> str:
    """The type of an error, its message, and the notes on where it happened, as one text."""
    message = f"{type(error).__name__}: {error}".removesuffix(": ")
    return " ".join([message, *getattr(error, "__notes__", [])])


def message(error: BaseException) -> str:
    """The message of an error; for one of the operating system, the file, what is wrong with it, and what to do."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename} cannot be read or written ({error.strerror}); name another place, or repair this one."
    return str(error)


class CheckpointError(ValueError):
    """A file on disk cannot continue this run."""


class FolderInUseError(RuntimeError):
    """Another process writes to the folder of a run."""


class RankError(RuntimeError):
    """Another process of the run failed, or the processes differ in what must be the same on all of them.

    Attributes:
        rank: the process that failed, which has said what happened; None if there is none.
    """

    def __init__(self, message: str, rank: int | None = None) -> None:
        super().__init__(message)
        self.rank = rank


class Terminated(KeyboardInterrupt):
    """The process was asked to end by SIGTERM."""


class NotConvergedWarning(UserWarning):
    """The hypergradient is inexact: the inner problem or the adjoint system was not solved to tolerance."""


class ExtrapolationWarning(UserWarning):
    """A Taylor expansion was evaluated outside the radius of convergence that its terms suggest."""


class NoTaylorRuleWarning(UserWarning):
    """An operation was expanded by nested forward mode, which is correct and slow."""


class NotCompiledWarning(UserWarning):
    """A function that was to be compiled cannot be; it runs uncompiled, slower."""


class NotOptimalError(HypergradError):
    """The given parameters do not solve the inner problem."""
