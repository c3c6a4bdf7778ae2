"""Files of shards whose damage is found, as torch.distributed.checkpoint does not look for it.

Imported only where shards are written or read, because torch.distributed.checkpoint takes half a second.
"""

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter

from hypergrad.core.errors import CheckpointError

_PLACES = ".metadata"
"""The file that says where the shards are."""
_BLOCK = 1 << 20
"""Bytes that are read at once."""


class CheckedWriter(FileSystemWriter):
    """Writes shards, and notes the checksums of the files.

    Args:
        folder: of the shards.

    Attributes:
        checksums: CRC-32 of the files that this process wrote, by their names.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.folder, self.checksums = folder, dict[str, int]()

    def write_data(self, plan: Any, planner: Any) -> Any:
        done = super().write_data(plan, planner)
        for name in {one.storage_data.relative_path for one in done.wait()}:
            self.checksums[name] = _checksum(self.folder / name)
        return done

    def finish(self, metadata: Any, results: Any) -> None:
        super().finish(metadata, results)
        self.checksums[_PLACES] = _checksum(self.folder / _PLACES)


class CheckedReader(FileSystemReader):
    """Reads shards from files that are still what was written.

    Args:
        folder: of the shards.
        checksums: CRC-32 of the files by their names; a file without one is not checked.

    Attributes:
        damage: what is wrong with a file, if this process found something; torch words it otherwise.
    """

    def __init__(self, folder: Path, checksums: Mapping[str, int]) -> None:
        super().__init__(folder)
        self.folder, self.checksums, self.damage = folder, checksums, ""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Any:
        self._require_undamaged(_PLACES)
        return super().read_metadata(*args, **kwargs)

    def read_data(self, plan: Any, planner: Any) -> Any:
        for name in sorted({self.storage_data[item.storage_index].relative_path for item in plan.items}):
            self._require_undamaged(name)
        return super().read_data(plan, planner)

    def _require_undamaged(self, name: str) -> None:
        """Require that a file is what was written.

        Raises:
            CheckpointError: if it is not.
        """
        if self.checksums.get(name) not in (None, _checksum(self.folder / name)):
            self.damage = f"{name} is no longer what was written, by its checksum"
            raise CheckpointError(self.damage)


def _checksum(path: Path) -> int:
    found = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            found = zlib.crc32(block, found)
    return found
