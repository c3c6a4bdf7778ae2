"""What all commands of hypergrad share: where the configs are, what a config builds, and how errors are shown."""

import copy
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
from omegaconf.errors import InterpolationResolutionError

from hypergrad.callback.base import Callback
from hypergrad.cli.argument_types import require_types
from hypergrad.cli.command_help import CommandHelp
from hypergrad.cli.composition import composed
from hypergrad.cli.device import require_device
from hypergrad.cli.explain import explain
from hypergrad.cli.given import given, name_given, overrides
from hypergrad.cli.output import is_of_output
from hypergrad.cli.permission import Permission
from hypergrad.cli.resume import resumed
from hypergrad.cli.run_settings import require_problem, require_settings
from hypergrad.cli.screening import plain, screen, unresolved
from hypergrad.cli.settings import options_first, own_settings
from hypergrad.cli.sharing import require_sharing
from hypergrad.cli.target import targets
from hypergrad.core.errors import Terminated, message
from hypergrad.core.launch import is_first_to_fail, launched, processes, traced
from hypergrad.estimator.base import HypergradEstimator
from hypergrad.problem.base import InnerProblem
from hypergrad.problem.k_fold import k_fold
from hypergrad.problem.precision import in_precision, matrix_products, require_precision

_FULL_ERROR = "HYDRA_FULL_ERROR"
_DTYPES = {"float32": torch.float32, "float64": torch.float64}


def config_path() -> str:
    """Where the configs are: in the installed package, or next to the code in a checkout that is not installed."""
    if importlib.util.find_spec("hypergrad.configs"):
        return "pkg://hypergrad.configs"
    return str(Path(__file__).resolve().parents[2] / "configs")


def configured(cfg: DictConfig, *keys: str) -> Any:
    """What the part of a config at these keys builds; None where there is no such part.

    From here on, the config has the public names of what it names, as `hypergrad.Ridge`.

    Also raised, by what it calls: ValueError for an unknown name of hypergrad; TypeError for a value of another type.
    """
    for (*way, last), target in targets(OmegaConf.to_container(cfg)):
        node: Any = cfg
        for key in way:
            node = node[key]
        node[last] = target
    part: Any = cfg
    for key in keys:
        part = part.get(key)
    require_types(plain(part), *keys)
    try:
        return instantiate(part)
    except Exception as error:
        name_given(error, *keys)
        raise


@contextmanager
def configured_problem(cfg: DictConfig) -> Iterator[InnerProblem]:
    """The problem that a config names, on its device; its dtype is torch's default inside the context.

    Raises:
        ValueError: if the config names an unknown dtype.
        TypeError: if `problem` is not an InnerProblem.

    Also raised, by what it calls: ValueError if there is no problem or no such device, or the folds are out of
    range.
    """
    if cfg.dtype not in _DTYPES:
        remedy = "; for losses in bfloat16 give precision=bf16-mixed or bf16-true" if "16" in str(cfg.dtype) else ""
        raise ValueError(f"dtype must be one of {', '.join(_DTYPES)}, but it is {cfg.dtype}{remedy}.")
    if cfg.precision is not None:
        require_precision(cfg.precision)
    launch = launched()
    device = require_device(cfg.device if launch is None else launch.device(str(cfg.device)), _DTYPES[cfg.dtype])
    config: Any = OmegaConf.to_container(cfg)
    require_problem(config.get("problem"))
    before = torch.get_default_dtype()
    torch.set_default_dtype(_DTYPES[cfg.dtype])
    try:
        torch.manual_seed(cfg.seed)  # of the initial weights of a module
        is_seeded, start = _is_seeded(cfg), torch.get_rng_state()  # building resolves the config
        problem = configured(cfg, "problem")
        if not isinstance(problem, InnerProblem):
            raise TypeError(f"problem must be an InnerProblem, but {cfg.problem._target_} returned a {type(problem)}.")
        if given("seed") and not is_seeded and torch.equal(start, torch.get_rng_state()):
            warnings.warn(
                f"seed={cfg.seed} changes nothing: {cfg.problem._target_} draws no random numbers when it is built, "
                "and its config does not refer to ${seed}.",
                UserWarning,
                stacklevel=2,
            )
        problem = problem.to(device=device, dtype=_DTYPES[cfg.dtype])
        whole = problem if cfg.folds is None else k_fold(problem, cfg.folds, seed=cfg.seed)
        if launch is not None and launch.world > 1:
            whole = configured(cfg, "distributed")(whole)
        with matrix_products(cfg.precision, device):
            yield in_precision(whole, cfg.precision)
    finally:
        torch.set_default_dtype(before)


def _is_seeded(cfg: DictConfig) -> bool:
    """Whether the seed changes the config of the problem, or how its examples are divided into folds."""
    other = copy.deepcopy(cfg)
    other.seed = cfg.seed + 1
    return cfg.folds is not None or plain(cfg.problem) != plain(other.problem)


def configured_estimators(*, without: str = "") -> dict[str, HypergradEstimator]:
    """Every estimator that has a config, with the other overrides of the command line.

    If the command line chooses an estimator, only that one, so that it can have settings that others do not have.

    Args:
        without: the target of those that are left out, and not built, unless the command line chooses one.
    """
    arguments = overrides()
    if any(override.startswith("estimator=") for override in arguments):
        names = [HydraConfig.get().runtime.choices["estimator"]]
    else:
        names = GlobalHydra.instance().config_loader().get_group_options("estimator")
    others = [override for override in arguments if not override.startswith("estimator=")]
    composed = {name: hydra.compose("config", [*others, f"estimator={name}"]) for name in names}
    if len(composed) > 1:
        composed = {name: cfg for name, cfg in composed.items() if cfg.estimator._target_ != without}
    return {name: configured(cfg, "estimator") for name, cfg in composed.items()}


def built(cfg: DictConfig) -> dict[str, Any]:
    """The resolved config, without the groups that the estimator and the problem contain already."""
    config: Any = OmegaConf.to_container(cfg, resolve=True)
    inside = ("callback", "data", "linsolve", "product", "resume", "single_loop", "solver", "task")
    of_process = ("any_world", "rank_timeout", *([] if config.get("distributed") else ["distributed"]))
    return {key: value for key, value in config.items() if key not in inside + of_process}


def run_folder() -> Path:
    """The folder of the present run."""
    return Path(HydraConfig.get().runtime.output_dir)


def configured_callbacks(cfg: DictConfig, *, without: tuple[str, ...] = ()) -> list[Callback]:
    """The callbacks that a config names, but for those of some names, and those set to null."""
    names = [name for name, part in cfg.callback.items() if part is not None and name not in without]
    return [configured(cfg, "callback", str(name)) for name in names]


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
