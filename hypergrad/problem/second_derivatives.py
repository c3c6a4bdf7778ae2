"""Problems whose losses have first derivatives alone."""

from hypergrad.problem.base import InnerProblem


def require_second_derivatives(problem: InnerProblem, name: str) -> None:
    """Require that the losses of a problem can be differentiated twice.

    Args:
        problem: what is tuned.
        name: of what needs them.

    Raises:
        ValueError: if they cannot.
    """
    if not problem.has_second_derivatives:
        raise ValueError(
            f"{name} needs second derivatives, but {type(problem).__name__} has first ones alone. Use "
            "hg.Implicit(product=hg.CentredDifferences(), error_bar=False), or hg.SingleLoop with hg.F2SA or hg.SAMA."
        )
