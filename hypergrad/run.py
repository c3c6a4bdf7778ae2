"""The command line: `python -m hypergrad.run experiment=ridge`."""

import json
import shlex
import sys
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from hypergrad.cli.command import built, command, configured, configured_callbacks, configured_problem
from hypergrad.cli.resume import resumed
from hypergrad.outer.trainer import Trainer

_COLUMNS = ("run", "dev loss", "test loss", "converged", "products", "seconds")


def tune(cfg: DictConfig) -> float:
    """Build the trainer that a config describes, and run it.

    Args:
        cfg: the composed config.

    Returns:
        The dev loss at the final hyperparameters, for Hydra's sweepers.

    Raises:
        KeyboardInterrupt: after Ctrl-C or SIGTERM; the command that continues the run is printed on standard error.
    """
    with configured_problem(cfg) as problem:
        trainer = Trainer(
            problem=problem,
            estimator=configured(cfg, "estimator"),
            optimizer=configured(cfg, "optimizer"),
            outer_steps=cfg.outer_steps,
            warm_start=cfg.warm_start,
            scheduler=configured(cfg, "scheduler"),
            acceptance=configured(cfg, "acceptance"),
            max_grad_norm=cfg.max_grad_norm,
            monitor=cfg.monitor,
            patience=cfg.patience,
            retrain=cfg.retrain,
            callbacks=configured_callbacks(cfg),
        )
        try:
            return trainer.fit(built(cfg), resume=cfg.resume).last.outer_loss
        except KeyboardInterrupt:
            if cfg.callback.get("checkpoint") is not None:
                folder = HydraConfig.get().runtime.output_dir
                resume = shlex.quote(f"resume={folder}")
                print(f"continue with: python -m hypergrad.run {resume}", file=sys.stderr)
            raise


class Comparison(Callback):
    """Shows the results of all runs of a multirun in one table; the exit code is 1 if a run failed."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Print the table.

        Also raised, by what it calls: SystemExit if a run failed.
        """
        folder = Path(config.hydra.sweep.dir).resolve()
        # A launcher may keep its own files there, in a hidden folder.
        runs = sorted((path for path in folder.glob("[!.]*") if path.is_dir()), key=_job_number)
        summaries = {run.name: _summary(run) for run in runs}
        failed = {name: summary for name, summary in summaries.items() if summary["status"] != "finished"}
        reasons = [f"{name}: {summary.get('error', 'it left no summary.json')}" for name, summary in failed.items()]
        table = Table(*_COLUMNS, title="all runs", title_justify="left")
        for name, summary in summaries.items():
            table.add_row(name, *(("failed", "", "", "", "") if name in failed else _cells(summary["last"])))
        console = Console()
        if not console.is_terminal:
            console.width = 120  # a log has room for the names of the runs
        console.print(table)
        for reason in reasons:
            console.print(reason, highlight=False, soft_wrap=True)
        console.print(f"tensorboard --logdir {shlex.quote(str(folder))}", highlight=False, soft_wrap=True)
        if reasons:
            sys.exit(f"{len(reasons)} of {len(runs)} runs failed.")


def _summary(run: Path) -> dict[str, Any]:
    path = run / "summary.json"
    return json.loads(path.read_text()) if path.exists() else {"status": "failed"}


def _cells(last: dict[str, Any]) -> tuple[str, ...]:
    """The numbers of a finished run at its last step, as text."""
    test = f"{last['loss/test']:.8g}" if "loss/test" in last else ""
    converged = [last[tag] for tag in ("inner/converged", "adjoint/converged") if tag in last]
    answer = "" if not converged else "no" if 0.0 in converged else "yes"
    return f"{last['loss/dev']:.8g}", test, answer, f"{last['run/products']:.0f}", f"{last['run/seconds']:.1f}"


def _job_number(path: Path) -> tuple[int, str]:
    head = path.name.split("_", 1)[0]
    return (int(head) if head.isdigit() else -1, path.name)


def main() -> None:
    """Run the command line."""
    try:
        sys.argv[1:] = resumed(sys.argv[1:])
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    command(tune)


if __name__ == "__main__":
    main()
