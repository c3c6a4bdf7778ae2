"""What a worker says and hears: one JSON object per line.

worker  {"contestants": […], "note": versions and what is not timed}
master  {"contestant": name, "budget": K, "scale": 1/λ_max, "calls": n, "result": where to write the hypergradient}
worker  {"seconds": mean time of a call, "products": Hessian products spent on it, "megabytes": peak memory}
"""

import json
import os
import sys
import time
from collections.abc import Callable

import numpy as np

from benchmarks.peers.memory import peak_megabytes

Work = Callable[[int, float], np.ndarray]
"""The flat hypergradient from a budget of K iterations and 1/λ_max."""


def serve(load: Callable[[dict[str, np.ndarray]], dict[str, tuple[Work, int]]], note: Callable[[], str]) -> None:
    """Answer requests until the input ends.

    Args:
        load: from the arrays of the .npz named on the command line, who takes part: the work, and the products that are
            spent beyond the K of the budget.
        note: what to tell about versions, called after `load`.
    """
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints is no reply
    with np.load(sys.argv[1]) as saved:
        contestants = load(dict(saved))
    print(json.dumps({"contestants": list(contestants), "note": note()}), file=replies)
    for line in sys.stdin:
        request = json.loads(line)
        work, extra = contestants[request["contestant"]]

        def calls(work: Work = work, request: dict = request) -> tuple[np.ndarray, float]:
            begin = time.perf_counter()
            for _ in range(request["calls"] - 1):
                work(request["budget"], request["scale"])
            found = work(request["budget"], request["scale"])
            return found, (time.perf_counter() - begin) / request["calls"]

        (found, seconds), megabytes = peak_megabytes(calls)
        np.save(request["result"], found)
        reply = {"seconds": seconds, "products": request["budget"] + extra, "megabytes": megabytes}
        print(json.dumps(reply), file=replies)
