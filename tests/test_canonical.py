"""The canonical experiments at a tiny size: each config, and a property that a wrong sign or factor would break."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

import hypergrad as hg
from hypergrad.cli.building import configured_problem
from hypergrad.core.autodiff import central_difference, flatten
from hypergrad.problem.supervised.hyper_cleaning import corrupted

CONFIGS = str(Path(__file__).parent.parent / "configs")


def configured(experiment: str, *overrides: str) -> hg.Trainer:
    """What `python -m hypergrad.run experiment=…` runs, on the digits and in float64."""
    with initialize_config_dir(CONFIGS, version_base="1.3"):
        cfg = compose("config", [f"experiment={experiment}", "data=digits", "dtype=float64", *overrides])
    with configured_problem(cfg) as problem:
        parts = {name: instantiate(cfg[name]) for name in ("estimator", "optimizer")}
        settings: Any = OmegaConf.to_container(cfg)
        kept = {name: settings[name] for name in ("outer_steps", "warm_start", "max_grad_norm")}
        return hg.Trainer(problem=problem, **parts, **kept)


def assert_differences_agree(
    problem: hg.InnerProblem, estimator: hg.HypergradEstimator, hparams: hg.Tensors, step: float, rel: float
) -> hg.Hypergradient:
    """The hypergradient along a random direction is the central difference of the dev loss through retraining."""
    found = estimator.estimate(problem, hparams, problem.init_params())
    generator = torch.Generator().manual_seed(0)
    direction = {name: torch.randn(x.shape, generator=generator) for name, x in hparams.items()}

    def dev_loss(at: hg.Tensors) -> torch.Tensor:
        return torch.tensor(estimator.estimate(problem, at, problem.init_params()).outer_loss)

    slope = central_difference(dev_loss, hparams, direction, step).item()
    assert sum((found.grad[k] * direction[k]).sum().item() for k in hparams) == pytest.approx(slope, rel=rel)
    return found


@pytest.mark.filterwarnings("ignore::hypergrad.NotConvergedWarning")  # the default stops training early
def test_hyper_cleaning_weighs_the_wrong_labels_down():
    trainer = configured("hyper_cleaning", "outer_steps=6")
    problem = trainer.problem
    assert isinstance(problem, hg.HyperCleaning)
    assert problem.is_wrong.sum() == round(0.5 * len(problem.y))
    result = trainer.fit()
    assert result.first.metrics["f1"] == 0
    assert result.last.metrics["f1"] > 0.9
    # Random calls would have the precision 1/2.
    assert result.last.metrics["precision"] > 0.9
    assert result.last.metrics["test_accuracy"] > result.first.metrics["test_accuracy"] + 0.02
    assert result.last.outer_loss < result.first.outer_loss / 2


def test_hyper_cleaning_in_one_loop_weighs_the_wrong_labels_down():
    result = configured("single_loop_cleaning", "outer_steps=200").fit()
    assert isinstance(result.last.problem, hg.HyperCleaning)
    assert result.first.metrics["f1"] == 0
    assert result.last.metrics["f1"] > 0.9
    assert result.last.metrics["precision"] > 0.9
    assert result.last.metrics["test_accuracy"] > 0.8


def test_the_hypergradient_of_hyper_cleaning_is_that_of_differences():
    digits = hg.digits()
    problem = hg.HyperCleaning(hg.Splits(*(hg.Split(X[:60], y[:60]) for X, y in digits)), l2=1e-2)
    exact = hg.Implicit(solver=hg.LBFGS(), linsolve=hg.CG(tol=1e-10, max_iter=500), inner_tol=1e-9, error_bar=False)
    found = assert_differences_agree(problem, exact, problem.init_hparams(), step=1e-3, rel=1e-5)
    # More weight on a wrong label raises the dev loss.
    grad = found.grad["weights"]
    assert grad[problem.is_wrong].mean() > 0 > grad[~problem.is_wrong].mean()


def test_the_hypergradient_of_hyper_cleaning_through_mini_batches_is_that_of_differences():
    digits = hg.digits()
    small = hg.Splits(*(hg.Split(X[:60], y[:60]) for X, y in digits))
    problem = hg.HyperCleaning(small, l2=1e-2, batch_size=20, seed=1)
    unrolled = hg.Unrolled(solver=hg.Momentum(lr=0.1), inner_steps=5)
    found = assert_differences_agree(problem, unrolled, problem.init_hparams(), step=1e-3, rel=1e-5)
    grad = found.grad["weights"]
    assert grad[problem.is_wrong].mean() > 0 > grad[~problem.is_wrong].mean()


def test_a_share_of_the_labels_is_made_wrong_and_no_more():
    y = torch.arange(40) % 4
    noisy, is_wrong = corrupted(y, 4, noise=0.3, seed=0)
    assert is_wrong.sum() == 12
    assert torch.equal(noisy != y, is_wrong)
    with pytest.raises(ValueError, match="noise = 1 makes 40"):
        corrupted(y, 4, noise=1.0, seed=0)


def test_a_penalty_for_each_weight_falls_where_the_dev_loss_wants_the_weight():
    trainer = configured("weight_decay", "problem.model.in_features=64", "problem.hyperparameters.l2.init=0.01")
    problem = trainer.problem
    hparams = problem.init_hparams()
    assert hparams["l2"].shape == (640,)
    exact = hg.Implicit(solver=hg.LBFGS(), linsolve=hg.CG(tol=1e-10, max_iter=500), inner_tol=1e-12, error_bar=False)
    found = assert_differences_agree(problem, exact, hparams, step=1e-5, rel=1e-5)
    # A smaller penalty lets a weight go on as it is: dF/dλ_j = −2 v_j w_j with H v = ∂f/∂w.
    v, w = found.carry, flatten(found.params)
    assert v is not None
    assert torch.allclose(flatten(found.grad), -2 * v * w, rtol=1e-6, atol=1e-12)


def test_ten_learned_images_train_better_than_ten_real_ones():
    trainer = configured("distillation", "outer_steps=20", "optimizer.lr=0.1")
    problem = trainer.problem
    assert isinstance(problem, hg.Distillation)
    hparams = problem.init_hparams()
    assert_differences_agree(problem, trainer.estimator, hparams, step=1e-4, rel=1e-5)
    X, y = problem.get_buffer("X_train"), problem.get_buffer("y_train")
    real = {"images": torch.stack([X[y == k][0] for k in range(10)])}
    judged = trainer.estimator.estimate(problem, real, problem.init_params())
    learned = trainer.fit().last
    assert learned.metrics["test_accuracy"] > float(problem.metrics(judged.params, real)["test_accuracy"]) + 0.1
    assert learned.outer_loss < judged.outer_loss


def test_a_schedule_through_reversed_training_is_that_of_differences_and_lowers_the_dev_loss():
    trainer = configured(
        "lr_schedule",
        "outer_steps=3",
        "problem.batch_size=50",
        "problem.model.in_features=64",
        "problem.model.hidden=[6,6,6]",
        "problem.hyperparameters.rate.shape=[8,8]",
        "estimator.inner_steps=8",
    )
    hparams = trainer.problem.init_hparams()
    assert hparams["rate"].shape == (8, 8)
    assert_differences_agree(trainer.problem, trainer.estimator, hparams, step=1e-5, rel=1e-5)
    result = trainer.fit()
    losses = [row["loss/dev"] for row in result.history]
    assert losses == sorted(losses, reverse=True)


def test_fifty_dev_images_can_be_overfitted_by_a_penalty_for_each_weight():
    trainer = configured("overfit_validation", "problem.model.in_features=64", "outer_steps=12", "optimizer.lr=0.5")
    problem = trainer.problem
    assert isinstance(problem, hg.Supervised)
    assert len(problem.y) == len(problem.y_dev) == 50

    def dev_accuracy(params: hg.Tensors) -> float:
        return (problem.model(params, problem.X_dev, None).argmax(1) == problem.y_dev).double().mean().item()

    with pytest.warns(hg.NotConvergedWarning):
        result = trainer.fit()
    assert dev_accuracy(result.first.params) < 0.95
    assert dev_accuracy(result.last.params) == 1
    assert result.last.outer_loss < result.first.outer_loss / 3


def test_scales_of_initial_weights_through_training_are_those_of_differences():
    small = ["problem.model.in_features=64", "problem.model.hidden=[6,6,6]", "estimator.inner_steps=12"]
    trainer = configured("init_scale", "outer_steps=5", *small)
    hparams = trainer.problem.init_hparams()
    assert hparams["scale"].shape == (8,)
    assert_differences_agree(trainer.problem, trainer.estimator, hparams, step=1e-5, rel=1e-5)
    result = trainer.fit()
    assert result.last.outer_loss < result.first.outer_loss


EXAMPLES = "problem.hyperparameters.weights._target_=hypergrad.ExampleWeights"


@pytest.mark.parametrize("weights", [[], [EXAMPLES]], ids=["of classes", "of examples"])
def test_weights_of_rare_classes_rise(weights):
    small = ["problem.model.num_features=64", "problem.data.imbalance=20", "outer_steps=8"]
    trainer = configured("reweight", *small, *weights)
    problem = trainer.problem
    assert isinstance(problem, hg.Supervised)
    counts = problem.y.bincount()
    assert counts[0] == pytest.approx(20 * counts[9], abs=10)
    with pytest.warns(hg.NotConvergedWarning):
        result = trainer.fit()
    found = result.last.hparams["weights"]
    of_examples = found if weights else found[problem.y]
    assert of_examples[problem.y >= 8].mean() > 1.5 * of_examples[problem.y <= 1].mean()
    assert result.last.outer_loss < result.first.outer_loss


def test_encoder_and_decoder_learn_through_the_steps_on_each_posterior():
    small = ["problem.encoder.in_features=64", "problem.decoder.out_features=64", "problem.num_test=20"]
    trainer = configured("savi", "outer_steps=20", "optimizer.lr=0.01", "estimator.inner_steps=4", *small)
    assert_differences_agree(
        trainer.problem.at_outer_step(0), trainer.estimator, trainer.problem.init_hparams(), step=1e-5, rel=1e-5
    )
    result = trainer.fit()
    assert result.last.metrics["test_loss"] < result.first.metrics["test_loss"] - 5


@pytest.mark.filterwarnings("ignore::hypergrad.NotConvergedWarning")  # the draws are new at each step
def test_a_network_that_moves_the_train_images_lowers_the_dev_loss():
    small = ["problem.model.in_features=64", "problem.hyperparameters.moves.network.in_features=64"]
    trainer = configured("augmentation", "outer_steps=6", "problem.model.hidden=[10]", *small)
    result = trainer.fit()
    assert result.first.hparams["moves"].shape == (64 * 16 + 16 + 16 * 12 + 12,)
    assert result.last.outer_loss < result.first.outer_loss


def test_the_hypergradient_of_class_weights_is_that_of_differences():
    problem = configured("reweight", "problem.model.num_features=64", "problem.data.imbalance=20").problem
    hparams = problem.init_hparams() | {"l2": torch.tensor(1e-2)}
    assert hparams["weights"].shape == (10,)
    exact = hg.Implicit(solver=hg.LBFGS(), linsolve=hg.CG(tol=1e-10, max_iter=500), inner_tol=1e-11, error_bar=False)
    assert_differences_agree(problem, exact, hparams, step=1e-4, rel=1e-5)
