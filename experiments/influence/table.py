"""The table of README.md: how well influences predict what happens without half of the examples.

python -m experiments.influence.table FOLDER [--trec ROOT] [--peers PYTHON]

FOLDER keeps what was trained and scored, and a run that was killed goes on from there.
"""

import argparse
import subprocess
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import hypergrad as hg
from experiments.influence.cases import CASES, Case, Setting
from experiments.influence.handed import keep, reply
from experiments.influence.retraining import halves, retrained, trained
from experiments.influence.score import lds
from experiments.numbers import save

HALVES, RUNS, KINDS = 50, (0, 1), ("same", "other")
PEERS = ("experiments.influence.with_kronfluence", "experiments.influence.with_trak")
METHODS = (
    *("unrolled", "CG", "EK-FAC", "EK-FAC, 1/τ", "EK-FAC without penalty"),
    *("kronfluence", "kronfluence, 1/τ", "kronfluence, default damping", "TRAK"),
)
"""As the files in FOLDER are named."""


def ours(problem: hg.Supervised, setting: Setting, params: hg.Tensors) -> dict[str, Callable[..., Tensor]]:
    """What gives the scores, by method."""
    hparams, damping = problem.init_hparams(), setting.damping
    free = hparams | {"l2": torch.zeros_like(hparams["l2"])}
    unrolled = hg.UnrolledInfluence(solver=setting.solver, inner_steps=setting.steps, dev_block=50)
    cg = hg.CG(max_iter=20, tol=1e-2)
    scores = partial(hg.influence_scores, problem, params)
    return {
        "unrolled": partial(scores, hparams, method=unrolled),
        "CG": partial(
            scores, hparams, method=hg.ImplicitInfluence(linsolve=cg, product=hg.GaussNewton(), damping=damping)
        ),
        "EK-FAC": partial(scores, hparams, method=hg.ImplicitInfluence(linsolve=hg.EKFAC())),
        "EK-FAC, 1/τ": partial(scores, hparams, method=hg.ImplicitInfluence(linsolve=hg.EKFAC(damping=damping))),
        "EK-FAC without penalty": partial(scores, free, method=hg.ImplicitInfluence(linsolve=hg.EKFAC())),
    }


def place(folder: Path, case: Case, when: str) -> Path:
    """The file that is handed to peers; what belongs to it has the same stem."""
    return folder / f"{case.name}, {when}.pt"


def losses_file(folder: Path, case: Case, when: str, run: int) -> Path:
    """The file of the dev losses of retrainings."""
    return reply(place(folder, case, when), f"run {run}")


def prepare(path: Path, problem: hg.Supervised, case: Case, setting: Setting) -> hg.Tensors:
    """The network trained on all examples; written for peers."""
    if not path.exists():
        params = {name: w[0] for name, w in trained(problem, setting, torch.ones(1, len(problem.y))).items()}
        data = {"train": (problem.X, problem.y), "dev": problem.part("dev", None), "params": params}
        torch.save(data | {"name": case.name, "damping": case.l2 + setting.damping}, path)
    return torch.load(path)["params"]


def score(folder: Path, case: Case, when: str, root: str) -> None:
    """Train a network, retrain it and another one on halves, and score by our methods."""
    setting = case.settings[when]
    problems = [case.problem(root, seed) for seed in RUNS]
    members = halves(len(problems[0].y), HALVES)
    for problem, run in zip(problems, RUNS, strict=True):
        begin = time.process_time()
        retrained(problem, setting, members, losses_file(folder, case, when, run))
        print(f"{case.name}, {when}, run {run}: retrained, {time.process_time() - begin:.1f} s", flush=True)
    path = place(folder, case, when)
    for name, scores in ours(problems[0], setting, prepare(path, problems[0], case, setting)).items():
        if name.startswith("EK-FAC") and not reply(path, name).exists():
            scores(dev=torch.arange(1))  # what is loaded at the first call is no time of the method
        keep(path, name, scores)


def judged(folder: Path, case: Case, when: str) -> dict[str, Any]:
    """The linear datamodeling scores of each method that has scored, by dev example, its seconds and its memory.

    "same": of retrainings of the run that was explained; "other": of a run with other initial weights and batches.
    """
    losses = {word: torch.load(losses_file(folder, case, when, run)) for word, run in zip(KINDS, RUNS, strict=True)}
    rows: dict[str, Any] = {}
    for name in METHODS:
        kept = reply(place(folder, case, when), name)
        if kept.exists():
            found = torch.load(kept)
            members = halves(found["scores"].shape[1], HALVES)
            each = {word: lds(found["scores"], members, x).tolist() for word, x in losses.items()}
            rows[name] = {
                "seconds": round(found["seconds"], 2),
                "megabytes": round(found["megabytes"]),
                **{word: [round(value, 3) for value in values] for word, values in each.items()},
            }
    return rows


def spread(values: list[float]) -> tuple[float, float]:
    """Mean, and its standard error."""
    x = torch.tensor(values)
    return x.mean().item(), (x.std() / len(x) ** 0.5).item()


def show(numbers: dict[str, Any]) -> None:
    """Print a table for each network and setting."""
    for title, rows in numbers.items():
        table = Table("", "same run", "other run", "same, less kronfluence", "CPU s", "MB", title=title)
        for name, row in rows.items():
            cells = ["{:.3f} ± {:.3f}".format(*spread(row[kind])) for kind in KINDS]
            peer = rows.get("kronfluence", row)["same"]
            gain = spread([a - b for a, b in zip(row["same"], peer, strict=True)])
            table.add_row(
                name, *cells, "{:+.3f} ± {:.3f}".format(*gain), f"{row['seconds']:.1f}", f"{row['megabytes']:.0f}"
            )
        Console(width=130).print(table)


def main() -> None:
    """Measure, keep the numbers, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--trec", default="", help="the folder of the TREC questions; without it these are left out")
    parser.add_argument("--peers", default="", help="python of an environment with kronfluence and traker")
    parser.add_argument("--cases", nargs="+", default=list(CASES), help="names of networks")
    parser.add_argument("--settings", nargs="+", default=["early", "end"], choices=["early", "end"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float32)
    warnings.filterwarnings("ignore", message=".*performance drop because we have not yet implemented the batching.*")
    options.folder.mkdir(parents=True, exist_ok=True)
    cases = [CASES[name] for name in options.cases if options.trec or name != "TREC"]
    runs = [(case, when) for case in cases for when in options.settings]
    for case, when in runs:
        score(options.folder, case, when, options.trec)
    if options.peers:
        paths = [str(place(options.folder, *run)) for run in runs]
        for peer in PEERS:
            subprocess.run([options.peers, "-m", peer, *paths], check=True)
    report(options.folder)


def report(folder: Path) -> None:
    """Keep the numbers of all networks and settings that FOLDER has, and print the tables."""
    every = [(case, when) for case in CASES.values() for when in case.settings]
    done = [run for run in every if place(folder, *run).exists()]
    numbers = {f"{case.name}, {when}": judged(folder, case, when) for case, when in done}
    save("influence", numbers)
    show(numbers)


if __name__ == "__main__":
    main()
