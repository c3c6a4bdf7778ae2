"""The cases of several files in one launch."""

from collections.abc import Callable
from typing import Any

import branch_cases
import parity_cases
import reach_cases


def cases() -> dict[str, Callable[[], Any]]:
    return parity_cases.cases() | reach_cases.cases() | branch_cases.cases()
