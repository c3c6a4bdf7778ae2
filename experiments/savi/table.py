"""The tables of README.md: autoencoders trained with and without steps on each posterior, judged with and without.

python -m experiments.savi.table
"""

import statistics
import time
from functools import partial
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import hypergrad as hg
from experiments.numbers import save
from hypergrad.core.autodiff import detach, leaves
from hypergrad.model.network import perceptron
from hypergrad.training.training import Training

SEEDS, OUTER_STEPS, INNER_STEPS, SAMPLES = range(3), 600, 5, 10
LONGER = 5
"""Times as many outer steps for an ordinary autoencoder, whose steps are the cheaper ones."""
SOLVER = hg.Momentum(lr=0.005, momentum=0.5)
ADAM = partial(torch.optim.Adam, lr=0.004)
MORE_STEPS, GENTLER = 150, partial(torch.optim.Adam, lr=0.001)
"""Of a training that goes on from a trained autoencoder."""
JUDGED_AFTER = (0, 1, 2, 5, 10, 20)


def problem_of(seed: int, *, encoder: bool = True, start: hg.Tensors | None = None) -> hg.SemiAmortized:
    """The problem of `experiment=savi`, without test images at each step, from networks trained before where given."""
    torch.manual_seed(seed)
    networks = {"encoder": perceptron(784, 16, (100,)) if encoder else None, "decoder": perceptron(8, 784, (100,))}
    for part, network in networks.items():
        if start is None:
            break
        network.load_state_dict({k.removeprefix(f"{part}."): x for k, x in start.items() if k.startswith(part)})
    return hg.SemiAmortized(hg.mnist5k(seed=seed, dev=0.1, test=0.2), **networks, num_test=0, seed=seed)


def through_steps(problem: hg.SemiAmortized, steps: int = OUTER_STEPS, optimizer: Any = ADAM) -> hg.Tensors:
    """Networks trained through the steps on each posterior."""
    estimator = hg.Unrolled(solver=SOLVER, inner_steps=INNER_STEPS)
    return hg.fit(problem, estimator, optimizer, steps, progress=False, warm_start=False).last.hparams


def amortized(problem: hg.SemiAmortized, steps: int = OUTER_STEPS, optimizer: Any = ADAM) -> hg.Tensors:
    """Networks trained without any: an ordinary variational autoencoder, on the same batches and draws."""
    hparams = leaves(problem.init_hparams())
    adam = optimizer(list(hparams.values()))
    for step in range(steps):
        own = problem.at_outer_step(step)
        start = own.initial(own.init_params(), hparams)
        adam.zero_grad()
        own.outer_loss(start, hparams, own.outer_batch(step)).backward()
        adam.step()
    return detach(hparams)


@torch.no_grad()
def judged(problem: hg.SemiAmortized, hparams: hg.Tensors, part: str, steps: int) -> float:
    """The negative ELBO of held-out images after some steps from where the problem starts them."""
    problem = problem.on_images(problem.get_buffer(f"X_{part}"))
    trained = Training(solver=SOLVER, steps=steps).run(problem, hparams, problem.init_params()).params
    params = trained if steps else problem.initial(problem.init_params(), hparams)
    return problem.outer_loss(params, hparams, problem.draws(SAMPLES, len(problem.images), "table")).item()


def measured(seed: int) -> dict[str, Any]:
    """The negative ELBO of each training, by the start of inference on held-out images and its number of steps."""
    with_encoder, without = problem_of(seed), problem_of(seed, encoder=False)
    trainings = {
        "VAE": (amortized, with_encoder),
        "VAE, longer": (partial(amortized, steps=LONGER * OUTER_STEPS), with_encoder),
        "SVI": (through_steps, without),
        "SA-VAE": (through_steps, with_encoder),
    }
    found: dict[str, Any] = {}
    for name, (training, problem) in trainings.items():
        begin = time.process_time()
        hparams = training(problem)
        found[name] = {"seconds": time.process_time() - begin}
        starts = {"prior": without} | ({"encoder": with_encoder} if problem is with_encoder else {})
        decoder = {key: value for key, value in hparams.items() if key.startswith("decoder.")}
        for start, inference in starts.items():
            weights = hparams if start == "encoder" else decoder
            for part, after in (("dev", (0, INNER_STEPS)), ("test", JUDGED_AFTER)):
                found[name][f"{start} {part}"] = {k: judged(inference, weights, part, k) for k in after}
        print(seed, name, found[name], flush=True)
    return found


def continued(seed: int) -> dict[str, Any]:
    """The negative ELBO after both ways to continue a training, before and after the steps on each posterior."""
    trained = amortized(problem_of(seed), LONGER * OUTER_STEPS)
    problem = problem_of(seed, start=trained)
    found = {
        "VAE, longer": trained,
        "then on as VAE": amortized(problem, LONGER * MORE_STEPS, GENTLER),
        "then on as SA-VAE": through_steps(problem, MORE_STEPS, GENTLER),
    }
    return {
        name: {f"{part} {k}": judged(problem, hparams, part, k) for part in ("dev", "test") for k in (0, INNER_STEPS)}
        for name, hparams in found.items()
    }


ROWS = {
    "VAE": ("VAE", "encoder", 0),
    "VAE, then 5 steps": ("VAE", "encoder", INNER_STEPS),
    "VAE, 5 times as many outer steps": ("VAE, longer", "encoder", 0),
    "the same, then 5 steps": ("VAE, longer", "encoder", INNER_STEPS),
    "SVI: 5 steps from the prior": ("SVI", "prior", INNER_STEPS),
    "SA-VAE: 5 steps from the encoder": ("SA-VAE", "encoder", INNER_STEPS),
}


def shown(values: list[float]) -> str:
    """Mean and deviation over seeds."""
    return f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}"


def main() -> None:
    """Measure, keep the numbers, and print the tables."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float32)
    numbers = {}
    for seed in SEEDS:
        numbers[str(seed)] = {**measured(seed), "continued": continued(seed)}
        save("savi", numbers)
    console, runs = Console(width=120), list(numbers.values())
    table = Table("", "dev", "test", "training, CPU s", title="negative ELBO in nats, mean and deviation over 3 seeds")
    for name, (training, start, steps) in ROWS.items():
        columns = [shown([run[training][f"{start} {part}"][steps] for run in runs]) for part in ("dev", "test")]
        table.add_row(name, *columns, f"{statistics.mean([run[training]['seconds'] for run in runs]):.0f}")
    console.print(table)
    table = Table("decoder of", "from", *map(str, JUDGED_AFTER), title="the same decoder, by steps of inference: test")
    for training in ("VAE", "VAE, longer", "SVI", "SA-VAE"):
        for start in ("encoder", "prior"):
            if f"{start} test" in runs[0][training]:
                columns = [shown([run[training][f"{start} test"][steps] for run in runs]) for steps in JUDGED_AFTER]
                table.add_row(training, start, *columns)
    console.print(table)
    columns = [f"{part} {k}" for part in ("dev", "test") for k in (0, INNER_STEPS)]
    table = Table("", *columns, title="one autoencoder, trained on: dev and test after 0 and 5 steps")
    for name in runs[0]["continued"]:
        table.add_row(name, *(shown([run["continued"][name][column] for run in runs]) for column in columns))
    console.print(table)


if __name__ == "__main__":
    main()
