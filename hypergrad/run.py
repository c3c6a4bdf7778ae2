"""The command line: `python -m hypergrad.run experiment=ridge`."""

import importlib.util
import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from hypergrad.explain import explain
from hypergrad.problem.base import InnerProblem
from hypergrad.trainer import Trainer

_FULL_ERROR = "HYDRA_FULL_ERROR"
_DTYPES = {"float32": torch.float32, "float64": torch.float64}


def config_path() -> str:
    """Where the configs are: inside the installed package, or beside the code in a checkout that is not installed."""
    if importlib.util.find_spec("hypergrad.configs"):
        return "pkg://hypergrad.configs"
    return str(Path(__file__).resolve().parent.parent / "configs")


def tune(cfg: DictConfig) -> float:
    """Build everything that a config names, and run it.

    Args:
        cfg: the composed config.

    Returns:
        The dev loss at the final hyperparameters, for Hydra's sweepers.

    Raises:
        ValueError: if the config names no problem, an unknown dtype, or a device that is not there.
        TypeError: if `problem` is not an InnerProblem.
    """
    if cfg.dtype not in _DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(_DTYPES)}, but it is {cfg.dtype}.")
    if str(cfg.device).startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device is {cfg.device}, but torch {torch.__version__} finds no GPU here; use device=cpu.")
    if cfg.get("problem") is None:
        raise ValueError(
            "No problem is configured: choose experiment=ridge, or one of your own with --config-dir, whose file "
            "begins with `# @package _global_` and has a key `problem`."
        )
    before = torch.get_default_dtype()
    torch.set_default_dtype(_DTYPES[cfg.dtype])
    try:
        problem = instantiate(cfg.problem)
        if not isinstance(problem, InnerProblem):
            raise TypeError(f"problem must be an InnerProblem, but {cfg.problem._target_} made a {type(problem)}.")
        trainer = Trainer(
            problem=problem.to(device=cfg.device, dtype=_DTYPES[cfg.dtype]),
            estimator=instantiate(cfg.estimator),
            optimizer=instantiate(cfg.optimizer),
            outer_steps=cfg.outer_steps,
            warm_start=cfg.warm_start,
            callbacks=list(instantiate(cfg.callback).values()),
        )
        return trainer.fit(_built(cfg)).last.outer_loss
    finally:
        torch.set_default_dtype(before)


def _built(cfg: DictConfig) -> dict[str, Any]:
    """The resolved config of what was built; what the estimator and the problem refer to stands inside them."""
    config: Any = OmegaConf.to_container(cfg, resolve=True)
    return {key: value for key, value in config.items() if key not in ("callback", "data", "linsolve", "solver")}


class Comparison(Callback):
    """After a multirun, shows what each run came to in one table; the exit code is 1 when one of them failed."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Print the table.

        Raises:
            SystemExit: if a run failed.
        """
        folder = Path(config.hydra.sweep.dir).resolve()
        table = Table(
            "run", "dev loss", "test loss", "converged", "products", "seconds", title="all runs", title_justify="left"
        )
        runs = sorted((path for path in folder.iterdir() if path.is_dir()), key=_job_number)
        failed = 0
        for run in runs:
            path = run / "summary.json"
            summary: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"status": "failed"}
            if summary["status"] != "finished":
                failed += 1
                table.add_row(run.name, "failed", "", "", "", "")
                continue
            last = summary["last"]
            test = f"{last['loss/test']:.8g}" if "loss/test" in last else ""
            products, seconds = f"{last['run/products']:.0f}", f"{last['run/seconds']:.1f}"
            is_inexact = 0.0 in (last.get("inner/converged"), last.get("adjoint/converged"))
            converged = "no" if is_inexact else "yes"
            table.add_row(run.name, f"{last['loss/dev']:.8g}", test, converged, products, seconds)
        console = Console()
        if not console.is_terminal:
            console.width = 120  # a log has room for the names of the runs
        console.print(table)
        console.print(f"tensorboard --logdir {folder}", highlight=False, soft_wrap=True)
        if failed:
            sys.exit(f"{failed} of {len(runs)} runs failed.")


def _job_number(path: Path) -> tuple[int, str]:
    head = path.name.split("_", 1)[0]
    return (int(head) if head.isdigit() else -1, path.name)


def main() -> None:
    """Run the command line."""
    wants_traceback = os.environ.get(_FULL_ERROR) == "1"
    # Makes Hydra hand every error on to us instead of printing its own report.
    os.environ[_FULL_ERROR] = "1"
    warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)

    @hydra.main(version_base="1.3", config_path=config_path(), config_name="config")
    def job(cfg: DictConfig) -> float | None:
        try:
            return tune(cfg)
        except Exception as error:
            if wants_traceback or HydraConfig.get().mode is not RunMode.MULTIRUN:
                raise
            # The other runs go on; `Comparison` counts this one as failed.
            print(explain(error), file=sys.stderr)
            return None

    try:
        job()
    except Exception as error:
        if wants_traceback:
            raise
        sys.exit(explain(error))


if __name__ == "__main__":
    main()
