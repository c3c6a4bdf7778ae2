"""The table of README.md: what weights for weakly labelled questions are worth, beside training on what is right.

python -m experiments.text_cleaning.table ROOT    # the folder of the TREC questions
"""

import statistics
import sys
import time
from functools import partial
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn.functional import cross_entropy

import hypergrad as hg
from experiments.cpu import CPUClock
from experiments.numbers import save
from hypergrad.training.training import Training

SEEDS, VOCABULARY, DROPOUT = range(3), 2000, 0.4
OUTER_STEPS, INNER_STEPS, BATCH_SIZE = 120, 5, 256
OPTIMIZER = partial(torch.optim.Adam, lr=0.5)
SOLVER = hg.AdamW(lr=1e-3, weight_decay=1e-2)
ESTIMATORS: dict[str, hg.HypergradEstimator] = {
    "ours": hg.Unrolled(solver=SOLVER, inner_steps=INNER_STEPS),
    "K-FAC": hg.Implicit(
        solver=hg.Adam(lr=1e-3),
        inner_steps=INNER_STEPS,
        inner_tol=0.0,
        linsolve=hg.KFAC(fisher="mc", refresh=10),
        product=hg.GaussNewton(),
        damping=1e-2,
        error_bar=False,
    ),
}
"""By the first word of their rows. An implicit one serves no decoupled decay, and has none."""
STEPS, TUNING_STEPS = 400, 150
"""Steps of each training at fixed weights, and of the one on dev that follows another."""
FITTING = hg.AdamW(lr=2e-3, weight_decay=1e-2)


def problem_on(data: hg.Splits, train: hg.Split, seed: int) -> hg.Supervised:
    """A transformer on some train questions, with a weight for each."""
    torch.manual_seed(seed)
    model: nn.Module = hg.TransformerClassifier(
        vocabulary=VOCABULARY, num_outputs=6, length=data.train.X.shape[1], dropout=DROPOUT
    )
    weights = hg.ExampleWeights(init=0.5, constraint=constraints.unit_interval)
    batch = min(BATCH_SIZE, len(train.y) // 2)
    parts: Any = {"train": train, "dev": data.dev, "test": data.test}
    return hg.Supervised(
        model=model, loss=cross_entropy, **parts, hyperparameters={"weights": weights}, batch_size=batch, seed=seed
    )


def fitted(problem: hg.Supervised, weights: Tensor, start: hg.Tensors | None = None) -> dict[str, Any]:
    """Test accuracy after training with fixed weights, and the parameters."""
    begin = time.process_time()
    steps = STEPS if start is None else TUNING_STEPS
    hparams = {"weights": weights / weights.mean()}
    w = problem.init_params() if start is None else start
    w = Training(solver=FITTING, steps=steps).run(problem, hparams, w).params
    return judged(problem, w, hparams) | {"cpu": time.process_time() - begin, "params": w}


def judged(problem: hg.Supervised, params: hg.Tensors, hparams: hg.Tensors) -> dict[str, Any]:
    """Dev loss and test accuracy."""
    with torch.no_grad():
        dev = problem.outer_loss(params, hparams, None).item()
    return {"dev": dev, "test": float(problem.metrics(params, hparams)["test_accuracy"])}


def joined(train: hg.Split, dev: hg.Split) -> hg.Split:
    """Both parts as one."""
    return hg.Split(torch.cat([train.X, dev.X]), torch.cat([train.y, dev.y]))


def with_dev(weights: Tensor, dev: hg.Split) -> Tensor:
    """Weights of train questions, and 1 for each of dev."""
    return torch.cat([weights, torch.ones(len(dev.y))])


def references(data: hg.Splits, right: Tensor, seed: int) -> dict[str, dict[str, Any]]:
    """Trainings without learned weights."""
    train, dev = data.train, data.dev
    ones = torch.ones(len(train.y))
    is_right = (train.y == right).float()
    weak, both = problem_on(data, train, seed), problem_on(data, joined(train, dev), seed)
    alone = problem_on(data, dev, seed)
    rows = {"weak labels": fitted(weak, ones)}
    rows["weak labels, then dev"] = fitted(alone, torch.ones(len(dev.y)), rows["weak labels"]["params"])
    rows["weak labels and dev"] = fitted(both, with_dev(ones, dev))
    rows["dev alone"] = fitted(alone, torch.ones(len(dev.y)))
    rows["weak labels that are right"] = fitted(weak, is_right)
    rows["weak labels that are right, and dev"] = fitted(both, with_dev(is_right, dev))
    rows["right labels"] = fitted(problem_on(data, hg.Split(train.X, right), seed), ones)
    return rows


def learned(data: hg.Splits, right: Tensor, seed: int, name: str) -> dict[str, Any]:
    """Weights by descent with one of the estimators, then trainings with them; the weights too."""
    clock, problem = CPUClock(), problem_on(data, data.train, seed)
    estimator = ESTIMATORS[name]
    result = hg.fit(problem, estimator, OPTIMIZER, OUTER_STEPS, progress=False, callbacks=[clock])
    weights = result.last.hparams["weights"].detach()
    is_right = (data.train.y == right).numpy()
    found = {"cpu": clock.seconds[-1], "auc": float(roc_auc_score(is_right, weights.numpy()))}
    both = problem_on(data, joined(data.train, data.dev), seed)
    rows = {
        f"{name}, trained on with its weights": fitted(problem, weights),
        f"{name}, and dev": fitted(both, with_dev(weights, data.dev)),
    }
    for row in rows.values():
        row |= {"cpu": row["cpu"] + found["cpu"], "auc": found["auc"]}
    return {"rows": rows, "weights": weights.tolist(), "is_right": is_right.tolist()}


def without_params(rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """The rows as numbers; without the dev loss of what is trained on dev."""
    return {
        name: {key: value for key, value in row.items() if key != "params" and not (key == "dev" and "dev" in name)}
        for name, row in rows.items()
    }


def measured(root: str, seed: int) -> dict[str, Any]:
    """The rows of a seed, which draws the order, the initial parameters, the batches and dropout."""
    data, right = (hg.trec_questions(root, labels=labels, seed=seed) for labels in ("weak", "right"))
    found, rows = {}, references(data, right.train.y, seed)
    for name in reversed(ESTIMATORS):
        found = learned(data, right.train.y, seed, name)
        rows |= found.pop("rows")
    return {"rows": without_params(rows)} | (found if seed == SEEDS[0] else {})


COLUMNS = {"dev": 3, "test": 4, "auc": 3, "cpu": 0}
"""What a row shows, and with how many digits."""


def show(numbers: dict[str, Any]) -> None:
    """Print the means and deviations over the seeds, and the test accuracy on each."""
    table = Table("row", *COLUMNS, "test on each")
    rows = [found["rows"] for found in numbers.values()]
    for name in rows[0]:
        each = [row[name] for row in rows]
        cells = [_spread([row[key] for row in each], n) if key in each[0] else "" for key, n in COLUMNS.items()]
        table.add_row(name, *cells, ", ".join(f"{row['test']:.3f}" for row in each))
    Console(width=130).print(table)


def _spread(values: list[float], digits: int) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.{digits}f} ± {deviation:.{digits}f}"


def main() -> None:
    """Measure, keep the numbers, and print the table."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float32)
    if len(sys.argv) != 2:
        sys.exit("usage: python -m experiments.text_cleaning.table ROOT, the folder of the TREC questions")
    numbers: dict[str, Any] = {}
    for seed in SEEDS:
        numbers[str(seed)] = measured(sys.argv[1], seed)
        save("text_cleaning", numbers)
        print(seed, numbers[str(seed)]["rows"], flush=True)
    show(numbers)


if __name__ == "__main__":
    main()
