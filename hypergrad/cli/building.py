"""What the parts of a config build: the problem on its device, the estimators and the callbacks."""

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import hydra
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from hypergrad.callback.base import Callback
from hypergrad.cli.argument_types import require_types
from hypergrad.cli.device import require_device
from hypergrad.cli.given import given, name_given, overrides
from hypergrad.cli.run_settings import require_problem
from hypergrad.cli.screening import plain
from hypergrad.cli.target import targets
from hypergrad.core.launch import launched
from hypergrad.estimator.base import HypergradEstimator
from hypergrad.problem.base import InnerProblem
from hypergrad.problem.k_fold import k_fold
from hypergrad.problem.precision import in_precision, matrix_products, require_precision

_DTYPES = {"float32": torch.float32, "float64": torch.float64}


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


def configured_callbacks(cfg: DictConfig, *, without: tuple[str, ...] = ()) -> list[Callback]:
    """The callbacks that a config names, but for those of some names, and those set to null."""
    names = [name for name, part in cfg.callback.items() if part is not None and name not in without]
    return [configured(cfg, "callback", str(name)) for name in names]
