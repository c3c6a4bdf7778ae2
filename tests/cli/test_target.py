"""What a config names: public names, also by the paths of the release before, and errors that say what was meant."""

from pathlib import Path

import pytest
from commands import call
from hydra.utils import get_object
from omegaconf import OmegaConf

import hypergrad as hg
from hypergrad.cli.building import configured
from hypergrad.cli.target import public_target, targets
from hypergrad.run import main

ROOT = Path(__file__).parents[2]
OLD = [
    *("acceptance.Acceptance", "baseline.grid.GridSearch", "baseline.random.RandomSearch", "baseline.tpe.TPE"),
    *("callback.checkpoint.Checkpoint", "callback.jsonl.JSONLines", "callback.progress.ProgressBar"),
    *("callback.summary.Summary", "callback.tensorboard.TensorBoard", "data.breast_cancer", "data.diabetes"),
    *("data.sparse_regression", "effect.affine_network.AffineNetwork", "effect.buffer.Buffer"),
    *("effect.class_weights.ClassWeights", "effect.example_weights.ExampleWeights"),
    *("effect.init_scale.InitScale", "effect.input_scale.InputScale", "effect.l1.L1", "effect.l2.L2"),
    *("effect.label_smoothing.LabelSmoothing", "effect.random_affine.RandomAffine", "estimator.forward.Forward"),
    *("estimator.implicit.Implicit", "estimator.unrolled.Unrolled", "hyperparameter.Hyperparameter"),
    *("images.digits", "images.idx_images", "images.mnist5k", "lbfgsb.LBFGSB", "linsolve.auto.Auto"),
    *("linsolve.cg.CG", "linsolve.dense.Dense", "linsolve.gmres.GMRES", "linsolve.jacobi.Jacobi"),
    *("linsolve.minres.MINRES", "linsolve.neumann.Neumann", "linsolve.nystrom.Nystrom"),
    *("problem.cell.mixed_cell", "problem.distillation.Distillation", "problem.elastic_net.ElasticNet"),
    *("problem.hyper_cleaning.HyperCleaning", "problem.lasso.Lasso", "problem.learning_to_learn.LearningToLearn"),
    *("problem.mean_field.MeanField", "problem.meta_learning.MetaLearning", "problem.network.perceptron"),
    *("problem.network.softmax_regression", "problem.quadratic.Quadratic", "problem.ridge.Ridge"),
    *("problem.semi_amortized.SemiAmortized", "problem.sparse_logistic.SparseLogistic"),
    *("problem.supervised.on_splits", "problem.tied.Tied", "problem.total_variation.TotalVariation"),
    *("product.differences.CentredDifferences", "product.forward_over_reverse.ForwardOverReverse"),
    *("product.gauss_newton.GaussNewton", "product.reverse.Reverse", "product.traced.Traced", "schedule.Cosine"),
    *("schedule.StepDecay", "schedule.Warmup", "selection.first_of", "selection.long_tailed"),
    *("sensitivity.jackknife.InfinitesimalJackknife", "sensitivity.linear_response.LinearResponse"),
    *("sensitivity.taylor_expansion.TaylorExpansion", "solver.adam.Adam", "solver.adamw.AdamW"),
    *("solver.coordinate_descent.CoordinateDescent", "solver.fixed_point.FixedPoint"),
    *("solver.gradient_descent.GradientDescent", "solver.lbfgs.LBFGS", "solver.momentum.Momentum"),
    *("solver.newton.Newton", "solver.proximal_gradient.ProximalGradient", "solver.rmsprop.RMSprop"),
    *("tape.auto.AutoTape", "tape.checkpoint.Checkpoint", "tape.graph.Graph", "tape.reversible.Reversible"),
    *("tape.store.Store", "task.few_shot.FewShot", "task.sinusoids.Sinusoids"),
]
"""Below `hypergrad.`, what the configs of 0.1.0 named."""
EXPERIMENT = """
# @package _global_
defaults:
  - override /optimizer: lbfgsb
name: mine
outer_steps: 2
problem:
  _target_: hypergrad.problem.tied.Tied
  name: l2
  groups: 2
  problem:
    _target_: hypergrad.problem.ridge.Ridge
    data: {_target_: hypergrad.data.diabetes}
    per_feature: true
solver: {_target_: hypergrad.solver.momentum.Momentum}
estimator: {_target_: hypergrad.estimator.implicit.Implicit}
optimizer: {_target_: hypergrad.lbfgsb.LBFGSB}
callback:
  checkpoint: {_target_: hypergrad.callback.checkpoint.Checkpoint}
"""


@pytest.fixture(autouse=True)
def _no_warning_given():
    public_target.cache_clear()


@pytest.mark.parametrize("old", OLD)
def test_an_old_path_is_the_public_name_with_a_warning(old):
    name = "StateSaver" if old == "callback.checkpoint.Checkpoint" else old.rpartition(".")[2]
    with pytest.warns(FutureWarning, match=rf"hypergrad\.{old} is now hypergrad\.{name};"):
        assert public_target(f"hypergrad.{old}") == f"hypergrad.{name}"
    assert get_object(f"hypergrad.{name}") is getattr(hg, name)


def test_an_old_path_is_warned_of_once():
    config = [{"_target_": "hypergrad.problem.ridge.Ridge"}, {"a": {"_target_": "hypergrad.problem.ridge.Ridge"}}]
    with pytest.warns(FutureWarning) as given:
        found = list(targets(config))
    assert found == [((0, "_target_"), "hypergrad.Ridge"), ((1, "a", "_target_"), "hypergrad.Ridge")]
    assert len(given) == 1


@pytest.mark.parametrize(
    "target", ["hypergrad.Ridge", "hypergrad.run.Comparison", "hypergrad.Budget.of", "hypergrad_of_mine.problem.Ridge"]
)
def test_what_is_public_or_not_ours_is_left_alone(target):
    assert public_target(target) == target


@pytest.mark.parametrize(
    ("target", "meant"),
    [
        ("hypergrad.Rigde", "hypergrad has nothing of the name hypergrad.Rigde. Did you mean hypergrad.Ridge?"),
        ("hypergrad.data.tables.diabets", "Did you mean hypergrad.diabetes?"),
        ("hypergrad.nowhere.Zzzzzzzzzzzzzzzzzz", "dir\\(hypergrad\\) lists the public names"),
    ],
)
def test_a_name_that_does_not_exist_is_an_error_with_its_key(target, meant):
    with pytest.raises(ValueError, match=f"problem.parts.0._target_: .*{meant}"):
        list(targets({"problem": {"parts": [{"_target_": target}]}}))


def test_what_an_interpolation_and_a_lookup_name_is_found_too():
    cfg = OmegaConf.create({
        "solver": {"_target_": "hypergrad.solver.momentum.Momentum", "lr": 0.1},
        "estimator": {"_target_": "hypergrad.Unrolled", "solver": "${solver}", "inner_steps": 3},
        "positive": {"_target_": "hydra.utils.get_object", "path": "hypergrad.problem.network.perceptron"},
        "tables": {"path": "hypergrad.data"},
    })
    with pytest.warns(FutureWarning):
        assert configured(cfg, "estimator") == hg.Unrolled(solver=hg.Momentum(lr=0.1), inner_steps=3)
    assert configured(cfg, "positive") is hg.perceptron
    assert cfg.tables.path == "hypergrad.data"
    assert configured(cfg, "scheduler") is None


def test_a_config_with_old_paths_runs_and_goes_on(tmp_path):
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text(EXPERIMENT.lstrip())
    done = run("--config-dir", "conf", "experiment=mine", "linsolve._target_=hypergrad.linsolve.cg.CG", cwd=tmp_path)
    assert done.count("warning: ") == done.count(" is now ") == 8
    assert "warning: hypergrad.callback.checkpoint.Checkpoint is now hypergrad.StateSaver;" in done
    (folder,) = (tmp_path / "outputs" / "mine").iterdir()
    more = run(f"resume={folder}", "outer_steps=3", cwd=tmp_path)
    assert more.count("warning: hypergrad.linsolve.cg.CG is now hypergrad.CG;") == 1
    assert (folder / "state-000003.pt").exists()


def run(*arguments: str, cwd: Path) -> str:
    """What the command says on standard error."""
    done = call(main, *arguments, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stderr
