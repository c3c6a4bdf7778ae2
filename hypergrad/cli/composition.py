"""What happens to every config that Hydra composes, before Hydra acts on it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from hypergrad.callback.state_file import found
from hypergrad.cli.config_files import named_config_files
from hypergrad.cli.permission import Permission
from hypergrad.cli.resume import AUTO
from hypergrad.cli.screening import plain, screen, screen_resumed
from hypergrad.core.launch import Launch

_SILENT = {"version": 1, "root": None, "disable_existing_loggers": False}
"""The logging of processes other than the first: none, and so no file."""


@contextmanager
def composed(permission: Permission, launch: Launch | None, arguments: list[str]) -> Iterator[None]:
    """Screen every config that Hydra composes, before Hydra builds its own callbacks, launchers and logs from it.

    Processes of torchrun get one folder for their run.

    Args:
        permission: what the config may name.
        launch: of this process.
        arguments: of the command line.
    """
    compose = ConfigLoaderImpl.load_configuration

    def screened(self: ConfigLoaderImpl, *given: Any, **settings: Any) -> DictConfig:
        try:
            with named_config_files():
                cfg = compose(self, *given, **settings)
        except ValueError as error:
            _require_names(self, arguments, error)
            raise
        config = plain(cfg)
        screen(config, permission)
        if permission.resumed is not None:
            screen_resumed(config["hydra"])
        if "hydra" in cfg:
            _require_verbosity(config["hydra"].get("verbose"))
            with read_write(cfg), open_dict(cfg):
                _place(cfg, launch, has_folder=any(text.startswith("hydra.run.dir=") for text in arguments))
        return cfg

    ConfigLoaderImpl.load_configuration = screened
    try:
        yield
    finally:
        ConfigLoaderImpl.load_configuration = compose


def _require_names(loader: ConfigLoaderImpl, arguments: list[str], error: ValueError) -> None:
    """Name the group, if Hydra met something else than the name of a config for one, and did not say which.

    Raises:
        ValueError: if it did.
    """
    if not str(error).startswith("Config group override must be"):
        return
    for argument in arguments:
        group, _, value = argument.lstrip("+").partition("=")
        names = loader.get_group_options(group.partition("@")[0])
        if names and not isinstance(yaml.safe_load(value), str | list):
            raise ValueError(
                f"{group} must be one of {', '.join(names)}, but it is {value}; ~{group} leaves it out."
            ) from None


def _require_verbosity(verbose: Any) -> None:
    """Require what Hydra takes for `hydra.verbose`; it breaks off at other types without a message.

    Raises:
        TypeError: if it is something else.
    """
    if not isinstance(verbose, bool | str | list):
        raise TypeError(f"hydra.verbose must be true, false or names of loggers, but it is {verbose!r}.")


def _place(cfg: DictConfig, launch: Launch | None, *, has_folder: bool) -> None:
    """Set the folder of the run, the same for all processes of torchrun; with `resume=auto`, after restarts too.

    Raises:
        ValueError: if a sweep is to run in several processes, or `resume=auto` has a new folder at each start.
    """
    is_auto, is_sweep = cfg.get("resume") == AUTO, cfg.hydra.get("mode") == RunMode.MULTIRUN
    if is_sweep and is_auto:
        raise ValueError("resume=auto goes on with one run; for a sweep, -m, begin it again without resume=auto.")
    if launch is not None and launch.world > 1 and is_sweep:
        raise ValueError(
            f"A sweep, -m, is started by one process, but torchrun started {launch.world}: start torchrun for each "
            "run, or the sweep without torchrun."
        )
    if is_auto and not has_folder and (launch is None or not launch.outlives):
        raise ValueError(
            "resume=auto goes on from what an earlier start left in the folder of the run, which must be the same each "
            "time: add hydra.run.dir=outputs/NAME. Only restarts of torchrun share a folder by themselves."
        )
    if is_sweep:
        _require_folders(cfg)
        return
    if launch is None and not is_auto:
        return
    folder = str(Path(cfg.hydra.run.dir).resolve())
    if launch is not None:
        folder = launch.same("folder", folder, in_all_attempts=is_auto)
    cfg.hydra.run.dir = folder
    if launch is not None and launch.rank > 0:
        cfg.hydra.output_subdir = None
        cfg.hydra.job_logging = OmegaConf.create(_SILENT)
    elif is_auto and found(Path(folder)):
        cfg.hydra.output_subdir = ".hydra/resumed"  # the config with which the run began stays


def _require_folders(cfg: DictConfig) -> None:
    """Require that each run of a sweep has a folder of its own.

    Raises:
        ValueError: if all of them have the same.
    """
    subdir = OmegaConf.to_container(cfg.hydra.sweep, resolve=False)["subdir"]  # pyright: ignore
    if "${" not in str(subdir):
        raise ValueError(
            f"hydra.sweep.subdir={subdir} would be the folder of every run of the sweep; write one that differs, such "
            "as hydra.sweep.subdir='${hydra.job.num}'."
        )
