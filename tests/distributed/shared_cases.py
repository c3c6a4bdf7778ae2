"""All cases of problems that several processes share, for one launch."""

from collections.abc import Callable
from functools import partial
from typing import Any

import norm_cases
import problem_cases
import refusal_cases
import stream_cases

PARITY = {**problem_cases.PARITY, **stream_cases.PARITY, **norm_cases.PARITY}
PRECISIONS = ("float32", "bf16-mixed", "bf16-true")


def cases() -> dict[str, Callable[[], Any]]:
    refused = {f"refused: {name}": partial(refusal_cases.refusal, act) for name, act in refusal_cases.ACTIONS.items()}
    inside = {precision: partial(norm_cases.rounded, precision) for precision in PRECISIONS}
    sent = {f"traffic {k}": partial(norm_cases.traffic, k) for k in range(3)}
    return {**PARITY, **inside, **refused, **sent, "rows read": stream_cases.rows_read, "draws": stream_cases.draws}
