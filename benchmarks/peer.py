"""A peer in an interpreter of its own, asked over a pipe."""

import json
import os
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.contestants import Contestant, Outcome

WORKERS = ("benchmarks.peers.with_torchopt", "benchmarks.peers.with_jaxopt")
_ROOT = Path(__file__).parent.parent


class Peer:
    """A worker process, as a context; see `benchmarks.peers.protocol` for what is said.

    Attributes:
        contestants: the names it answers to.
        note: its versions, and what it does not time.
    """

    def __init__(self, python: str, worker: str, arrays: Path) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._log = Path(self._folder.name) / "stderr"
        self._name = f"{python} -m {worker}"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [python, "-m", worker, str(arrays)],
                cwd=_ROOT,
                env=os.environ | {"JAX_PLATFORMS": "cpu"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        hello = self._reply()
        self.contestants: list[str] = hello["contestants"]
        self.note: str = hello["note"]

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._folder.cleanup()

    def ask(self, contestant: str, *, budget: int, scale: float, calls: int) -> Outcome:
        """The result of a contestant with a budget of K iterations, given 1/λ_max, `calls` times in a row."""
        result = Path(self._folder.name) / "result.npy"
        request = {"contestant": contestant, "budget": budget, "scale": scale, "calls": calls, "result": str(result)}
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # then the worker is gone, and waiting for its reply says why
            print(json.dumps(request), file=self._process.stdin, flush=True)
        reply = self._reply()
        return Outcome(torch.from_numpy(np.load(result)), reply["products"], reply["seconds"], reply["megabytes"])

    def _reply(self) -> dict[str, Any]:
        """The next line of the worker.

        Raises:
            RuntimeError: if there is none, because the worker has ended.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        code = self._process.wait()
        said = self._log.read_text().strip().splitlines()[-5:]
        self.__exit__()
        raise RuntimeError(
            f"{self._name} ended with exit code {code} instead of answering. Its last words:\n"
            + "\n".join(said)
            + "\nscripts/peers-env makes an environment that has what it needs."
        )


@dataclass(frozen=True)
class Remote(Contestant):
    """A contestant of a peer.

    Attributes:
        peer: the process it lives in.
        name: what it is called there.
        scale: 1/λ_max, which it is given for nothing.
    """

    peer: Peer
    name: str
    scale: float

    def run(self, budget: float, calls: int = 1) -> Outcome:
        return self.peer.ask(self.name, budget=int(budget), scale=self.scale, calls=calls)
