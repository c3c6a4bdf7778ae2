"""Scores on disk, by which a killed run goes on."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hypergrad.callback.atomic import remove_unfinished, replacing
from hypergrad.core.autodiff import Tensors


class ScoreFolder:
    """The trained parameters and the scores of blocks of dev examples, each written whole or not at all.

    Args:
        folder: where they are; created when missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._blocks = folder / "blocks"
        self._blocks.mkdir(parents=True, exist_ok=True)
        remove_unfinished(folder)
        remove_unfinished(self._blocks)

    def params(self, key: str, train: Callable[[], Tensors]) -> Tensors:
        """The trained parameters: those of before, or else those that `train` returns.

        Args:
            key: a digest of all on which they depend.
            train: makes them.

        Raises:
            ValueError: if those of before have another key.
        """
        path = self.folder / "trained.pt"
        if not path.exists():
            with replacing(path) as file:
                torch.save({"key": key, "params": train()}, file)
        found: Any = torch.load(path, weights_only=True)
        if found["key"] != key:
            raise ValueError(
                f"{path} holds parameters that were trained on another problem, or by another solver or number of "
                "steps. Resume with the settings of that run, or begin a new one without resume=…."
            )
        return found["params"]

    def block(self, key: str, number: int, score: Callable[[], Tensor]) -> Tensor:
        """The scores of a block of dev examples, on the CPU: those of before, or else those that `score` returns.

        Args:
            key: a digest of all on which the scores depend.
            number: of the block, from 0.
            score: makes them.
        """
        path = self._path(key, number)
        if not path.exists():
            scores = score().cpu().numpy()
            with replacing(path) as file:
                np.save(file, scores)
        return torch.from_numpy(np.load(path))

    def has_block(self, key: str, number: int) -> bool:
        """Whether a block is on disk."""
        return self._path(key, number).exists()

    def join(self, path: Path, key: str, num: int) -> None:
        """Write `num` blocks as one array, shape (m, n); one of them is in memory at a time."""
        each = [np.load(self._path(key, number), mmap_mode="r") for number in range(num)]
        shape = (sum(len(one) for one in each), each[0].shape[1])
        with replacing(path) as file:
            header = {"descr": each[0].dtype.str, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for one in each:
                file.write(np.ascontiguousarray(one).tobytes())

    def clear(self) -> None:
        """Remove the blocks."""
        for path in self._blocks.glob("*.npy"):
            path.unlink()
        self._blocks.rmdir()

    def _path(self, key: str, number: int) -> Path:
        return self._blocks / f"{key[:16]}-{number:05d}.npy"


def digest(*parts: Any) -> str:
    """A number of 64 hexadecimal digits that differs if one of the parts does: text, tensors, and dicts of these."""
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, dict):
            part = digest(*(one for pair in sorted(part.items(), key=lambda pair: str(pair[0])) for one in pair))
        if isinstance(part, Tensor):
            array = np.ascontiguousarray(part.detach().cpu().numpy())
            total.update(f"{array.dtype}{array.shape}".encode())
            total.update(array.tobytes())
        else:
            total.update(str(part).encode())
        total.update(b"\0")
    return total.hexdigest()
