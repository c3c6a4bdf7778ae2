"""What all commands of hypergrad share: where the configs are, what a config builds, and how errors are shown."""

import importlib.util
import json
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from hypergrad.callback.base import Callback
from hypergrad.cli.allowed import require_allowed
from hypergrad.cli.explain import explain
from hypergrad.cli.target import targets
from hypergrad.core.errors import Terminated
from hypergrad.estimator.base import HypergradEstimator
from hypergrad.problem.base import InnerProblem
from hypergrad.problem.k_fold import k_fold

_FULL_ERROR = "HYDRA_FULL_ERROR"
_WITH_VALUE = ("--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn", "--package", "-p")
"""Hydra's options whose value is the next argument, which may hold a "=" as a path does."""
_TRUST = "allow_targets="
_DTYPES = {"float32": torch.float32, "float64": torch.float64}


def config_path() -> str:
    """Where the configs are: in the installed package, or next to the code in a checkout that is not installed."""
    if importlib.util.find_spec("hypergrad.configs"):
        return "pkg://hypergrad.configs"
    return str(Path(__file__).resolve().parents[2] / "configs")


def configured(cfg: DictConfig, *keys: str) -> Any:
    """What the part of a config at these keys builds; None where there is no such part.

    Also raised, by what it calls: ValueError if the config, in any of its parts, names an object of this library that
    does not exist, or one that a config may not build.
    """
    # What is checked is what is built: a resolver could give another target when it is asked again.
    part: Any = OmegaConf.to_container(cfg, resolve=True)
    trusted = _trusted()
    for (*way, last), target in list(targets(part)):
        node: Any = part
        for key in way:
            node = node[key]
        require_allowed(target, trusted)
        node[last] = target
    for key in keys:
        part = part.get(key)
    return instantiate(part)


def _trusted() -> list[str]:
    """What `allow_targets` on the command line allows; a config file cannot allow anything."""
    if not HydraConfig.initialized():
        return []
    given = [text for text in HydraConfig.get().overrides.task if text.startswith(_TRUST)]
    return [name.strip(" '\"") for name in given[-1].removeprefix(_TRUST).strip("[]").split(",")] if given else []


@contextmanager
def configured_problem(cfg: DictConfig) -> Iterator[InnerProblem]:
    """The problem that a config names, on its device; its dtype is torch's default inside the context.

    Raises:
        ValueError: if the config names no problem, an unknown dtype, a missing device, or folds out of range.
        TypeError: if `problem` is not an InnerProblem.
    """
    if cfg.dtype not in _DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(_DTYPES)}, but it is {cfg.dtype}.")
    if str(cfg.device).startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device={cfg.device} needs a GPU, but torch {torch.__version__} finds none; use device=cpu.")
    if cfg.get("problem") is None:
        raise ValueError(
            "No problem is configured: choose experiment=ridge, or your own experiment with --config-dir. Its file "
            "begins with `# @package _global_` and has a key `problem`."
        )
    before = torch.get_default_dtype()
    torch.set_default_dtype(_DTYPES[cfg.dtype])
    try:
        torch.manual_seed(cfg.seed)  # of the initial weights of a module
        problem = configured(cfg, "problem")
        if not isinstance(problem, InnerProblem):
            raise TypeError(f"problem must be an InnerProblem, but {cfg.problem._target_} returned a {type(problem)}.")
        problem = problem.to(device=cfg.device, dtype=_DTYPES[cfg.dtype])
        yield problem if cfg.folds is None else k_fold(problem, cfg.folds, seed=cfg.seed)
    finally:
        torch.set_default_dtype(before)


def configured_estimators() -> dict[str, HypergradEstimator]:
    """Every estimator that has a config, with the other overrides of the command line.

    If the command line chooses an estimator, only that one, so that it can have settings that others do not have.
    """
    overrides = list(HydraConfig.get().overrides.task)
    if any(override.startswith("estimator=") for override in overrides):
        names = [HydraConfig.get().runtime.choices["estimator"]]
    else:
        names = GlobalHydra.instance().config_loader().get_group_options("estimator")
    overrides = [override for override in overrides if not override.startswith("estimator=")]
    composed = {name: hydra.compose("config", [*overrides, f"estimator={name}"]) for name in names}
    return {name: configured(cfg, "estimator") for name, cfg in composed.items()}


def built(cfg: DictConfig) -> dict[str, Any]:
    """The resolved config, without the groups that the estimator and the problem contain already."""
    config: Any = OmegaConf.to_container(cfg, resolve=True)
    inside = ("callback", "data", "linsolve", "product", "resume", "solver", "task")
    return {key: value for key, value in config.items() if key not in inside}


def run_folder() -> Path:
    """The folder of the present run."""
    return Path(HydraConfig.get().runtime.output_dir)


def configured_callbacks(cfg: DictConfig, *, without: tuple[str, ...] = ()) -> list[Callback]:
    """The callbacks that a config names, but for those of some names, and those set to null."""
    names = [name for name, part in cfg.callback.items() if part is not None and name not in without]
    return [configured(cfg, "callback", str(name)) for name in names]


def command(task: Callable[[DictConfig], float | None], *, sweeps: bool = True) -> None:
    """Compose the config from the command line, run `task` on it, and show errors without a traceback.

    Args:
        task: what to do; it returns the number that Hydra's sweepers minimise.
        sweeps: whether the task can run with `-m`.

    Raises:
        KeyboardInterrupt: with its traceback, where HYDRA_FULL_ERROR asks for it.

    Also raised, by what it calls: SystemExit with what went wrong, after an error.
    """
    wants_traceback = os.environ.get(_FULL_ERROR) == "1"
    # With this, Hydra raises every error instead of printing its own report.
    os.environ[_FULL_ERROR] = "1"
    sys.argv[1:] = _options_first(sys.argv[1:])
    warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)

    job = hydra.main(version_base="1.3", config_path=config_path(), config_name="config")
    try:
        job(_one_run(task, sweeps=sweeps, raises=wants_traceback))()
    except KeyboardInterrupt as error:
        if wants_traceback:
            raise
        print(f"stopped: {str(error) or 'interrupted'}", file=sys.stderr)
        sys.exit(128 + (signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT))
    except Exception as error:
        if wants_traceback:
            raise
        sys.exit(explain(error))


def _one_run(
    task: Callable[[DictConfig], float | None], *, sweeps: bool, raises: bool
) -> Callable[[DictConfig], float | None]:
    """The task for one config; in a sweep, an error ends only its own run, unless `raises`."""

    def run(cfg: DictConfig) -> float | None:
        is_sweep = HydraConfig.get().mode is RunMode.MULTIRUN
        try:
            if is_sweep and not sweeps:
                sys.exit("error: this command needs a single config; leave out -m.")
            return task(cfg)
        except Exception as error:
            if raises or not is_sweep:
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


def _options_first(arguments: list[str]) -> list[str]:
    """The same arguments, with those that set a value at the end, as Hydra requires."""
    options: list[str] = []
    settings: list[str] = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        sets = argument.startswith("~") or ("=" in argument and not argument.startswith("-"))
        (settings if sets and before not in _WITH_VALUE else options).append(argument)
    return options + settings
