"""The report of a training run."""

from dataclasses import dataclass

from hypergrad.core.status import Status


@dataclass(frozen=True)
class TrainingReport:
    """The outcome of a training run.

    Attributes:
        loss: the inner loss g at the trained parameters.
        grad_norm: ‖φ‖ there, by default ‖∇_w g‖.
        steps: inner steps taken.
        status: converged, or why not; `NOT_REQUIRED` if a fixed number of steps is differentiated.
        remark: whether training was compiled, or why not; "" if that was not requested.
    """

    loss: float
    grad_norm: float
    steps: int
    status: Status
    remark: str = ""
