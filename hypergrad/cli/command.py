"""What all commands of hypergrad share: where the configs are, how they are composed, and how errors are shown."""

import importlib.util
import json
import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import InterpolationResolutionError

from hypergrad.cli.command_help import CommandHelp
from hypergrad.cli.composition import composed
from hypergrad.cli.explain import explain
from hypergrad.cli.output import is_of_output
from hypergrad.cli.permission import Permission
from hypergrad.cli.resume import resumed
from hypergrad.cli.run_settings import require_settings
from hypergrad.cli.screening import plain, screen, unresolved
from hypergrad.cli.settings import options_first, own_settings
from hypergrad.cli.sharing import require_sharing
from hypergrad.core.errors import Terminated, message
from hypergrad.core.launch import is_first_to_fail, launched, processes, traced

_FULL_ERROR = "HYDRA_FULL_ERROR"


def config_path() -> str:
    """Where the configs are: in the installed package, or next to the code in a checkout that is not installed."""
    if importlib.util.find_spec("hypergrad.configs"):
        return "pkg://hypergrad.configs"
    return str(Path(__file__).resolve().parents[2] / "configs")


def run_folder() -> Path:
    """The folder of the present run."""
    return Path(HydraConfig.get().runtime.output_dir)


def command(
    task: Callable[[DictConfig], float | None],
    about: CommandHelp,
    *,
    sweeps: bool = True,
    resumes: bool = False,
    shares: bool = False,
) -> None:
    """Compose the config from the command line, run `task` on it, and show errors without a traceback.

    The config may name the objects only that `hypergrad.cli.permission` describes, and those in `allow_targets` on the
    command line.

    Args:
        task: what to do; it returns the number that Hydra's sweepers minimise.
        about: what its help says before Hydra's.
        sweeps: whether the task can run with `-m`.
        resumes: whether `resume=<run folder>` continues a run with its own arguments.
        shares: whether several processes of torchrun can share the task.

    Raises:
        KeyboardInterrupt: with its traceback, where HYDRA_FULL_ERROR asks for it.

    Also raised, by what it calls: SystemExit with what went wrong, after an error.
    """
    wants_traceback = os.environ.get(_FULL_ERROR) == "1"
    # With this, Hydra raises every error instead of printing its own report.
    os.environ[_FULL_ERROR] = "1"
    settings, arguments = own_settings(sys.argv[1:], {"allow_targets": ""})
    trusted = tuple(name for name in settings["allow_targets"].strip("[]").replace(" ", "").split(",") if name)
    folder, launch = None, launched()
    if resumes:
        try:
            arguments, folder = resumed(arguments)
        except (OSError, ValueError) as error:
            sys.exit(f"error: {message(error)}" if is_first_to_fail(error) else 1)
    try:
        here = Path.cwd().resolve()
    except FileNotFoundError:
        sys.exit("error: the current folder was deleted; change to one that exists, as with cd.")
    permission = Permission(here, trusted, folder)
    if {"--help", "-h"} & {*arguments}:
        print(about)
    sys.argv[1:] = options_first(arguments)
    shows = launch is None or launch.rank == 0
    warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr) if shows else None

    job = hydra.main(version_base="1.3", config_path=config_path(), config_name="config")
    try:
        with composed(permission, launch, arguments):
            job(_one_run(task, permission, sweeps=sweeps, shares=shares, raises=wants_traceback))()
    except KeyboardInterrupt as error:
        if wants_traceback:
            raise
        print(explain(error), file=sys.stderr)
        sys.exit(128 + (signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT))
    except Exception as error:
        if wants_traceback or is_of_output(error):
            raise
        sys.exit(explain(error, about.settings) if is_first_to_fail(error) else 1)


def _one_run(
    task: Callable[[DictConfig], float | None], permission: Permission, *, sweeps: bool, shares: bool, raises: bool
) -> Callable[[DictConfig], float | None]:
    """The task for one config; in a sweep, an error ends only its own run, unless `raises`."""

    def run(cfg: DictConfig) -> float | None:
        is_sweep = HydraConfig.get().mode is RunMode.MULTIRUN
        try:
            if is_sweep and not sweeps:
                sys.exit("error: this command needs a single config; leave out -m.")
            screen(plain(cfg), permission)  # again, as in a sweep another process may have composed it
            require_settings(plain(cfg))
            require_sharing(shares=shares, is_spread=bool(cfg.get("distributed")))
            show = traced if raises else explain
            with processes(device=str(cfg.device), timeout=cfg.rank_timeout, show=show):
                return task(cfg)
        except Exception as error:
            if isinstance(error, InterpolationResolutionError) and (key := unresolved(cfg)):
                error.add_note(f"This is the value of {key}; give it another one, or the key that it refers to.")
            if raises or not is_sweep or is_of_output(error):
                raise
            # `Comparison` counts this run as failed.
            print(explain(error), file=sys.stderr)
            _record_failure(error)
            return None

    return run


def _record_failure(error: Exception) -> None:
    """Leave the error in the folder of a run that ended before its callbacks were there to do it."""
    path, reason = run_folder() / "summary.json", explain(error).splitlines()[0].removeprefix("error: ")
    if not path.exists():
        path.write_text(json.dumps({"status": "failed", "error": reason}, indent=2) + "\n")
