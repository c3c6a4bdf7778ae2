"""Commands in the process of the tests, which spares each of them the seconds of its imports."""

import contextlib
import io
import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

from hypergrad.cli.target import public_target

_NOT_SHOWN = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)
"""Kinds of warnings that Python does not show by itself."""


def call(main: Callable[[], None], *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """What `python -m MODULE ARGUMENTS` does in a folder, with the main function of the module.

    Modules that it imports from the folder are forgotten afterwards.
    """
    out, err = io.StringIO(), io.StringIO()
    with _alone(cwd, arguments), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
            code = 0
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
            if isinstance(error.code, str):
                err.write(f"{error.code}\n")
    return subprocess.CompletedProcess([*arguments], code, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def _alone(cwd: Path, arguments: tuple[str, ...]) -> Iterator[None]:
    """The folder, arguments, settings and warnings of a process of its own; those of this one return at the end."""
    for path in cwd.glob("*.py"):
        sys.modules.pop(path.stem, None)  # of another folder, which a process of its own would not know
    before = Path.cwd(), sys.argv, sys.path[:], set(sys.modules), dict(os.environ), logging.root.handlers[:]
    os.chdir(cwd)
    sys.argv, sys.path[:0] = ["hypergrad", *arguments], [str(cwd)]
    os.environ.pop("HYDRA_FULL_ERROR", None)
    dtype = torch.get_default_dtype()
    GlobalHydra.instance().clear()
    public_target.cache_clear()  # it warns once in a process
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.resetwarnings()
            for kind in _NOT_SHOWN:
                warnings.simplefilter("ignore", kind)
            torch.set_default_dtype(torch.float32)
            yield
    finally:
        folder, sys.argv, sys.path[:], modules, environment, handlers = before
        torch.set_default_dtype(dtype)
        HydraConfig.instance().cfg = None
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        for handler in set(logging.root.handlers) - set(handlers):
            logging.root.removeHandler(handler)
            handler.close()
        for name in set(sys.modules) - modules:
            if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(cwd)):
                del sys.modules[name]
