"""The command line: `python -m hypergrad.run experiment=ridge`."""

import shlex
import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.console import Console

from hypergrad.cli.building import built, configured, configured_callbacks, configured_problem
from hypergrad.cli.command import command, run_folder
from hypergrad.cli.command_help import RUN
from hypergrad.cli.output import quiet_end
from hypergrad.cli.resume import AUTO
from hypergrad.outer.trainer import Trainer
from hypergrad.table.printed import print_table
from hypergrad.table.read import found_runs
from hypergrad.table.recorded_run import FINISHED, RecordedRun
from hypergrad.table.rows import numbers

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
            exact_every=cfg.exact_every,
            record_every=cfg.record_every,
            retrain=cfg.retrain,
            callbacks=configured_callbacks(cfg),
        )
        try:
            is_auto = cfg.resume == AUTO
            folder = run_folder() if is_auto else cfg.resume
            last = trainer.fit(built(cfg), resume=folder, resume_if_any=is_auto, any_world=cfg.any_world).last
            return last.outer_loss if last.dev_loss is None else last.dev_loss
        except KeyboardInterrupt:
            if cfg.callback.get("checkpoint") is not None and problem.peers.is_first:
                world = problem.peers.world
                start = ["python"] if world == 1 else ["torchrun", f"--nproc-per-node={world}"]
                again = shlex.join([*start, "-m", "hypergrad.run", f"resume={run_folder()}"])
                print(f"continue with: {again}", file=sys.stderr)
            raise


class Comparison(Callback):
    """Shows the results of all runs of a multirun in one table; the exit code is 1 if a run failed."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Print the table.

        Also raised, by what it calls: SystemExit if a run failed.
        """
        folder = Path(config.hydra.sweep.dir).resolve()
        runs = found_runs([folder])
        failed = [run for run in runs if run.status != FINISHED]
        print_table(
            [_row(run) for run in runs], {name: name for name in _COLUMNS}, "all runs", optional=_COLUMNS[:1:-1]
        )
        console = Console()
        for run in failed:
            reason = run.summary.get("error", "it left no summary.json")
            console.print(f"{run.folder.name}: {reason}", highlight=False, markup=False, soft_wrap=True)
        console.print(f"tensorboard --logdir {shlex.quote(str(folder))}", highlight=False, markup=False, soft_wrap=True)
        if failed:
            sys.exit(f"{len(failed)} of {len(runs)} runs failed.")


def _row(run: RecordedRun) -> dict[str, Any]:
    """A finished run at its last step, or the word "failed"."""
    if run.status != FINISHED:
        return {"run": run.folder.name, "dev loss": "failed"}
    found = numbers(run)
    names = ("dev_last", "test_last", "converged", "products", "seconds")
    row = {"run": run.folder.name} | {at: found.get(name) for at, name in zip(_COLUMNS[1:], names, strict=True)}
    losses = {at: f"{row[at]:.8g}" for at in ("dev loss", "test loss") if row[at] is not None}
    return row | losses | {"seconds": f"{row['seconds']:.1f}"}


@quiet_end()
def main() -> None:
    """Run the command line."""
    command(tune, RUN, resumes=True, shares=True)


if __name__ == "__main__":
    main()
