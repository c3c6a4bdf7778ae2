"""An estimator of one's own: what it may leave out, what it may carry, and what earlier versions had."""

import json
from functools import partial

import pytest
import torch
from rich.console import Console
from tables import PROBLEMS
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import hypergrad as hg
from hypergrad.callback import state_file
from hypergrad.callback.jsonl import JSONLines
from hypergrad.callback.progress import ProgressBar
from hypergrad.callback.state_saver import StateSaver
from hypergrad.callback.summary import Summary
from hypergrad.callback.tensorboard import TensorBoard
from hypergrad.core.errors import NotConvergedWarning
from hypergrad.core.status import Status
from hypergrad.training.report import TrainingReport

SGD = partial(torch.optim.SGD, lr=1e-3)


class ClosedForm(hg.HypergradEstimator):
    """The hypergradient of a problem that knows it."""

    def estimate(self, problem, hparams, params, *, outer_step=0, inner_step=0, carry=None):
        solution = problem.solution(hparams)
        return hg.Hypergradient(
            problem.hypergradient(hparams),  # pyright: ignore[reportCallIssue]
            solution,
            problem.outer_loss(solution, hparams, None).item(),
        )


def test_grad_params_and_outer_loss_are_enough_for_a_run_and_its_logs(tmp_path):
    console = Console(record=True, width=200)
    result = hg.Trainer(
        problem=PROBLEMS["quadratic"],
        estimator=ClosedForm(),
        optimizer=SGD,
        outer_steps=2,
        callbacks=[
            JSONLines(tmp_path),
            TensorBoard(tmp_path),
            Summary(tmp_path, console),
            ProgressBar(console),
            StateSaver(tmp_path),
        ],
    ).fit()
    assert result.last.outer_loss < result.first.outer_loss
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    tags = {"loss/dev", "hypergradient/norm", "run/products", "run/gradients", "run/inner_steps", "run/seconds"}
    assert tags <= set(EventAccumulator(str(tmp_path)).Reload().Tags()["scalars"])
    assert all(rows[2][tag] == 0 for tag in ("run/products", "run/inner_steps"))
    assert not any(tag.startswith(("inner/", "adjoint/", "loss/inner")) for tag in rows[2])
    assert json.loads((tmp_path / "summary.json").read_text())["status"] == "finished"
    assert "dev loss" in console.export_text()


def test_a_status_of_its_own_is_warned_of_and_counted():
    class Rough(ClosedForm):
        def estimate(self, *arguments, **settings):
            found = super().estimate(*arguments, **settings)
            report = TrainingReport(loss=1.0, grad_norm=0.5, steps=3, status=Status.MAX_ITER)
            return hg.Hypergradient(found.grad, found.params, found.outer_loss, training=report)

    trainer = hg.Trainer(problem=PROBLEMS["ridge"], estimator=Rough(), optimizer=SGD, outer_steps=1)
    with pytest.warns(NotConvergedWarning, match="its gradient norm is 5.00e-01 after 3 steps. Raise inner_steps"):
        result = trainer.fit()
    assert result.history[1]["inner/converged"] == 0
    assert result.history[1]["run/inner_steps"] == 6


class Counting(ClosedForm):
    """Carries a nesting of whatever a state file can hold, and requires it to come back as it went."""

    def estimate(self, problem, hparams, params, *, outer_step=0, inner_step=0, carry=None):
        count = 0 if carry is None else carry["count"]
        wanted = self.carried(count)
        assert carry is None or repr(carry) == repr(wanted)
        found = super().estimate(problem, hparams, params)
        return hg.Hypergradient(found.grad, found.params, found.outer_loss, carry=self.carried(count + 1))

    @staticmethod
    def carried(count):
        return {"count": count, "tables": [torch.full((2,), count), (torch.tensor(count), "a", None)], "empty": {}}


def test_any_nesting_is_carried_and_outlives_a_resume(tmp_path):
    def trainer(steps):
        saver = StateSaver(tmp_path)
        return hg.Trainer(
            problem=PROBLEMS["ridge"], estimator=Counting(), optimizer=SGD, outer_steps=steps, callbacks=[saver]
        )

    trainer(2).fit()
    trainer(4).fit(resume=tmp_path)
    assert state_file.read(tmp_path)["adjoint"]["count"] == 5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stats": {"num_matvecs": 3}}, "no argument stats: .* Pass training=TrainingReport"),
        ({"adjoint": torch.zeros(3)}, "no argument adjoint: it is called carry"),
    ],
    ids=["stats", "adjoint"],
)
def test_arguments_of_earlier_versions_are_refused_with_what_to_pass(settings, message):
    with pytest.raises(TypeError, match=message):
        hg.Hypergradient(grad={}, params={}, outer_loss=0.0, **settings)
    if "stats" in settings:
        with pytest.raises(TypeError, match=message):
            hg.Hypergradient({}, {}, 0.0, settings["stats"])  # pyright: ignore[reportCallIssue]


def test_the_keyword_of_earlier_versions_is_refused_when_the_class_is_made():
    with pytest.raises(TypeError, match="Old.estimate has the keyword `adjoint`, which is called `carry`: rename it"):

        class Old(hg.HypergradEstimator):
            def estimate(self, problem, hparams, params, *, outer_step=0, inner_step=0, adjoint=None):  # pyright: ignore
                raise NotImplementedError


TRAINING = {"inner_loss", "inner_grad_norm", "inner_steps", "inner_status", "training_remark"}
ADJOINT = {"num_matvecs", "adjoint_residual", "adjoint_status", "adjoint_remark", "adjoint_condition"}
ERROR = {"error_estimate", "error_status", "error_matvecs"}
KEYS = {
    "implicit": (hg.Implicit(inner_steps=5), TRAINING | ADJOINT | ERROR),
    "without a bar": (hg.Implicit(inner_steps=0, error_bar=False), TRAINING | ADJOINT),
    "unrolled": (hg.Unrolled(inner_steps=5), TRAINING | {"num_matvecs", "truncation_bias", "adjoint_growth"}),
    "forward": (hg.Forward(inner_steps=5), TRAINING | {"num_matvecs"}),
}


@pytest.mark.parametrize(("estimator", "keys"), KEYS.values(), ids=KEYS)
def test_the_flat_view_has_the_numbers_of_the_reports_as_plain_values(estimator, keys):
    problem = PROBLEMS["quadratic"]
    found = estimator.estimate(problem, problem.init_hparams(), problem.init_params())
    assert set(found.stats) == keys
    assert {type(value) for value in found.stats.values()} <= {float, int, str}
    assert found.stats["inner_status"] == found.training.status
    assert found.stats["num_matvecs"] == found.num_matvecs
    if found.error_bar is not None:
        assert found.stats["error_estimate"] == found.error_bar.estimate
