import math
from functools import partial

import pytest
import torch
from tables import PROBLEMS, relative_error, synthetic

import hypergrad as hg
from hypergrad.callback.base import Callback

SGD = partial(torch.optim.SGD, lr=0.1)
EXACT = hg.Implicit(solver=hg.Momentum(lr=0.05), linsolve=hg.Dense(), inner_steps=20_000, inner_tol=1e-12)
NEWTON = hg.Implicit(solver=hg.Newton(), linsolve=hg.Dense(), inner_tol=1e-12, error_bar=False)


def test_two_steps_are_what_they_are_by_hand():
    problem = PROBLEMS["quadratic"]
    result = hg.Trainer(
        problem=problem, estimator=EXACT, optimizer=partial(torch.optim.SGD, lr=1e-3), outer_steps=2
    ).fit()
    hparams = problem.init_hparams()
    u, shift = hparams["penalty"].log(), hparams["shift"]
    for _ in range(2):
        grad = problem.hypergradient({"penalty": u.exp(), "shift": shift})
        u, shift = u - 1e-3 * grad["penalty"] * u.exp(), shift - 1e-3 * grad["shift"]
    assert relative_error(result.last.hparams, {"penalty": u.exp(), "shift": shift}) <= 1e-9
    assert [row["step"] for row in result.history] == [0, 1, 2]
    assert result.first.step == 0
    assert relative_error(result.last.params, problem.solution(result.last.hparams)) <= 1e-9


OPTIMIZERS = [
    "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "ASGD", "LBFGS", "NAdam", "RAdam", "RMSprop",
    "Rprop", "SGD",
]  # fmt: skip


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_any_torch_optimiser_lowers_the_dev_loss(name):
    problem = PROBLEMS["ridge"]
    optimizer = getattr(torch.optim, name)
    result = hg.Trainer(problem=problem, estimator=EXACT, optimizer=optimizer, outer_steps=4).fit()
    assert result.last.outer_loss < result.first.outer_loss
    assert result.last.hparams["l2"] > 0


def test_a_line_search_sees_the_loss_and_gradient_of_where_it_stands():
    problem = PROBLEMS["ridge"]
    lbfgs = partial(torch.optim.LBFGS, line_search_fn="strong_wolfe", max_iter=10, tolerance_change=1e-14)
    result = hg.Trainer(problem=problem, estimator=EXACT, optimizer=lbfgs, outer_steps=3).fit()
    assert (
        problem.hypergradient(result.last.hparams)["l2"].abs()
        <= 1e-5 * problem.hypergradient(problem.init_hparams())["l2"].abs()
    )


@pytest.mark.parametrize("warm_start", [True, False])
def test_warm_start_changes_the_cost_and_not_the_result(warm_start):
    problem = PROBLEMS["quadratic"]
    small_steps = partial(torch.optim.SGD, lr=1e-6)
    result = hg.Trainer(
        problem=problem, estimator=EXACT, optimizer=small_steps, outer_steps=1, warm_start=warm_start
    ).fit()
    assert relative_error(result.last.grad, problem.hypergradient(result.last.hparams)) <= 1e-8
    ratio = float(result.last.stats["inner_steps"]) / float(result.first.stats["inner_steps"])
    assert ratio < 0.8 if warm_start else ratio == pytest.approx(1, abs=0.1)


def test_records_keep_the_values_that_they_were_made_at():
    problem = PROBLEMS["quadratic"]
    result = hg.Trainer(problem=problem, estimator=EXACT, optimizer=partial(SGD, lr=1e-3), outer_steps=3).fit()
    start = problem.init_hparams()["shift"]
    assert torch.equal(result.first.hparams["shift"], start)
    assert torch.equal(result.trajectory["shift"][0], start)
    assert not torch.equal(result.trajectory["shift"][1], start)
    assert result.trajectory["shift"].shape == (4, *start.shape)
    assert torch.equal(result.tensors()["hparam/penalty"], result.trajectory["penalty"])
    assert result.tensors()["step"].tolist() == [0, 1, 2, 3]
    torch.testing.assert_close(result.tensors()["loss/dev"][-1].item(), result.last.outer_loss)


def brute_force(problem):
    """The lowest dev loss of ridge over log λ."""
    grid = torch.linspace(-12, 6, 4001).exp()
    return min(problem.outer_loss(problem.solution({"l2": x}), {"l2": x}, None).item() for x in grid)


def test_lbfgsb_finds_the_minimum():
    problem = hg.Ridge(hg.diabetes(seed=3))
    result = hg.fit(problem, EXACT, hg.LBFGSB, steps=12, progress=False)
    lowest = brute_force(problem)
    assert lowest - 1e-7 < result.last.outer_loss <= lowest
    with pytest.raises(ValueError, match="LBFGSB needs memory ≥ 1"):
        hg.LBFGSB([torch.zeros(1)], memory=0)
    with pytest.raises(ValueError, match="LBFGSB needs a closure"):
        hg.LBFGSB([torch.zeros(1)]).step()


def test_lbfgsb_makes_the_steps_of_scipy():
    from scipy.optimize import minimize, rosen, rosen_der

    x = torch.tensor([-1.2, 1.0, 0.5], requires_grad=True)
    optimizer = hg.LBFGSB([x], memory=5, bound=2.0)

    def closure():
        x.grad = torch.tensor(rosen_der(x.detach().numpy()))
        return rosen(x.detach().numpy())

    for steps in range(1, 9):
        optimizer.step(closure)
        options = {"maxiter": steps, "maxcor": 5, "ftol": 0.0, "gtol": 1e-12}
        found = minimize(
            rosen, [-1.2, 1.0, 0.5], jac=rosen_der, method="L-BFGS-B", bounds=[(-2, 2)] * 3, options=options
        )
        assert x.tolist() == found.x.tolist()


def far_too_large(**settings):
    problem = hg.Ridge(hg.diabetes(seed=3))
    adam = partial(torch.optim.Adam, lr=2.0)
    return hg.Trainer(problem=problem, estimator=NEWTON, optimizer=adam, outer_steps=12, **settings).fit()


def test_acceptance_never_lets_the_dev_loss_rise():
    losses = far_too_large(acceptance=hg.Acceptance()).tensors()["loss/dev"]
    assert (losses.diff() <= 1e-7).all()
    assert losses[-1] < losses[0]
    assert (far_too_large().tensors()["loss/dev"].diff() > 1e-3).any()


def test_acceptance_shrinks_a_step_at_which_nothing_can_be_computed():
    class Wall(hg.Ridge):
        def outer_loss(self, params, hparams, batch):
            return super().outer_loss(params, hparams, batch) * (math.nan if hparams["l2"] < 0.3 else 1)

    problem = Wall(hg.diabetes(seed=3))
    sgd = partial(torch.optim.SGD, lr=100.0)
    trainer = hg.Trainer(problem=problem, estimator=NEWTON, optimizer=sgd, outer_steps=3, acceptance=hg.Acceptance())
    result = trainer.fit()
    assert 0.3 <= result.last.hparams["l2"] < 1


def test_a_run_that_cannot_go_down_says_so():
    class Uphill(hg.Ridge):
        def outer_loss(self, params, hparams, batch):
            return super().outer_loss(params, hparams, batch) - 2 * hparams["l2"].detach() + hparams["l2"]

    result = hg.fit(
        Uphill(hg.diabetes()), EXACT, SGD, 5, progress=False, acceptance=hg.Acceptance(max_rejections=3, slack=0.0)
    )
    assert result.stopped == "stalled"
    assert result.last.step == 0
    assert torch.equal(result.last.hparams["l2"], torch.tensor(1.0))


def test_clipping_bounds_the_step():
    problem = PROBLEMS["quadratic"]
    settings = {"optimizer": partial(torch.optim.SGD, lr=1.0), "outer_steps": 1, "max_grad_norm": 1e-3}
    result = hg.Trainer(problem=problem, estimator=EXACT, **settings).fit()
    first, last = result.first.hparams, result.last.hparams
    moved = torch.cat([(last["penalty"] / first["penalty"]).log()[None], last["shift"] - first["shift"]])
    assert moved.norm().item() == pytest.approx(1e-3, rel=1e-6)


def test_a_scheduler_steps_once_in_each_outer_step():
    seen = []

    class Spy(torch.optim.SGD):
        def step(self, closure):  # pyright: ignore
            seen.append(self.param_groups[0]["lr"])
            return super().step(closure)

    halve = partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.5)
    hg.fit(PROBLEMS["ridge"], EXACT, partial(Spy, lr=0.4), 3, progress=False, scheduler=halve)
    assert seen == [0.4, 0.2, 0.1]
    with pytest.raises(ValueError, match="A scheduler changes the learning rate, but LBFGSB has none"):
        hg.fit(PROBLEMS["ridge"], EXACT, hg.LBFGSB, 1, progress=False, scheduler=halve)
    with pytest.raises(TypeError, match="Trainer.scheduler must make a scheduler"):
        hg.fit(PROBLEMS["ridge"], EXACT, SGD, 1, progress=False, scheduler="cosine")


def test_patience_ends_a_run_and_the_best_is_kept():
    result = far_too_large(patience=2)
    losses = result.tensors()["loss/dev"]
    assert result.stopped == "patience"
    assert result.best.outer_loss == losses.min()
    assert result.best.step == losses.argmin()
    assert result.last.step == result.best.step + 3


class Watched(hg.Ridge):
    """With a metric that is least at l2 = 0.4, which descent on the dev loss passes by."""

    def metrics(self, params, hparams):
        watched = (hparams["l2"].log() - math.log(0.4)).square()
        return super().metrics(params, hparams) | {"watch_loss": watched}


def watched(monitor, **settings):
    adam = partial(torch.optim.Adam, lr=0.1)
    return hg.fit(Watched(hg.diabetes(seed=3)), NEWTON, adam, 20, progress=False, monitor=monitor, **settings)


def test_a_monitor_says_which_step_is_the_best():
    by_watch, by_dev = watched("watch_loss"), watched("outer_loss")
    losses = by_watch.tensors()["metric/watch_loss"]
    assert 0 < by_watch.best.step == losses.argmin() < by_dev.best.step
    assert f"lowest watch_loss {losses.min():.6g} at {by_watch.best.step}" in repr(by_watch)
    stopped = watched("watch_loss", patience=3, retrain=True)
    assert stopped.stopped == "patience"
    assert stopped.best.step == by_watch.best.step == stopped.last.step - 4
    whole, hparams = Watched(hg.diabetes(seed=3)).joined(stopped.best.hparams)
    assert stopped.retrained is not None
    truth = whole.metrics(whole.solution(hparams), hparams)["test_loss"]
    assert stopped.retrained["test_loss"] == pytest.approx(float(truth), rel=1e-9)


def test_what_cannot_be_monitored_is_refused():
    with pytest.raises(
        ValueError, match="monitor is 'test_loss', but data that chooses the hyperparameters can no longer test them"
    ):
        watched("test_loss")
    with pytest.raises(ValueError, match="a metric of Watched, which are test_loss, watch_loss, but"):
        watched("watch")
    with pytest.raises(ValueError, match="a metric of Quadratic, which are none"):
        hg.fit(PROBLEMS["quadratic"], EXACT, SGD, 0, progress=False, monitor="watch_loss")

    class Undefined(hg.Ridge):
        def metrics(self, params, hparams) -> dict[str, torch.Tensor | float]:
            return {"watch_loss": math.nan}

    with pytest.raises(hg.NonFiniteError, match="monitored watch_loss is NaN at outer step 0"):
        hg.fit(Undefined(hg.diabetes(seed=3)), EXACT, SGD, 1, progress=False, monitor="watch_loss")


@pytest.mark.parametrize("kind", ["ridge", "supervised"])
def test_the_final_training_sees_train_and_dev(kind):
    data = hg.diabetes(seed=3)
    problem = hg.Ridge(data, l2=0.2)
    if kind == "supervised":
        model = torch.nn.Linear(10, 1, bias=False)
        torch.nn.init.zeros_(model.weight)
        problem = hg.Supervised(
            model=model,
            loss=torch.nn.functional.mse_loss,
            train=data.train,
            dev=data.dev,
            test=data.test,
            hyperparameters={"l2": hg.L2(init=0.2)},
        )
    result = hg.fit(problem, EXACT, SGD, 0, progress=False, retrain=True)
    both = hg.Ridge(
        data._replace(train=hg.Split(*(torch.cat(parts) for parts in zip(data.train, data.dev, strict=True))))
    )
    hparams = {"l2": torch.tensor(0.2)}
    truth = both.metrics(both.solution(hparams), hparams)["test_loss"]
    assert result.retrained is not None
    assert result.retrained["test_loss"] == pytest.approx(float(truth), rel=1e-9)
    assert result.retrained["test_loss"] != result.best.metrics["test_loss"]
    with pytest.raises(NotImplementedError, match="Quadratic does not define `pooled_targets`"):
        hg.fit(PROBLEMS["quadratic"], EXACT, SGD, 0, progress=False, retrain=True)


def test_fit_shows_progress(capsys):
    hg.fit(PROBLEMS["ridge"], EXACT, SGD, steps=2)
    assert "outer step 2/2" in capsys.readouterr().out


class Watch(Callback):
    def __init__(self):
        self.told = []

    def on_start(self, run):
        self.told.append("start")

    def on_step(self, record):
        self.told.append(record.step)

    def on_end(self, result):
        self.told.append("end")

    def on_error(self, error, last):
        self.told.append((type(error).__name__, last and last.step))


def test_callbacks_are_told_in_order():
    watch = Watch()
    hg.Trainer(problem=PROBLEMS["ridge"], estimator=EXACT, optimizer=SGD, outer_steps=2, callbacks=[watch]).fit()
    assert watch.told == ["start", 0, 1, 2, "end"]


class BreaksLater(hg.Ridge):
    def outer_loss(self, params, hparams, batch):
        loss = super().outer_loss(params, hparams, batch)
        return loss if hparams["l2"] > 0.999 else loss * math.nan


def test_an_error_reaches_the_callbacks_with_the_last_good_record():
    watch, problem = Watch(), BreaksLater(hg.diabetes(), l2=1.0)
    trainer = hg.Trainer(problem=problem, estimator=EXACT, optimizer=SGD, outer_steps=5, callbacks=[watch])
    with pytest.raises(hg.NonFiniteError, match="outer loss is nan"):
        trainer.fit()
    assert watch.told == ["start", 0, ("NonFiniteError", 0)]


def test_a_step_to_infinity_is_refused():
    huge = partial(torch.optim.SGD, lr=float("1e308"))
    problem = hg.Quadratic(size=4)
    with pytest.raises(hg.NonFiniteError, match=r"Outer step 0 moved .*shift.* to NaN or infinity.*lower the lr"):
        hg.Trainer(problem=problem, estimator=EXACT, optimizer=huge, outer_steps=3).fit()


def test_not_converged_is_said_once_and_recorded_every_time():
    problem = PROBLEMS["quadratic-stiff"]
    rough = hg.Implicit(linsolve=hg.CG(max_iter=2), inner_steps=5)
    with pytest.warns(hg.NotConvergedWarning) as caught:
        result = hg.Trainer(
            problem=problem, estimator=rough, optimizer=partial(torch.optim.SGD, lr=1e-9), outer_steps=3
        ).fit()
    messages = [str(warning.message) for warning in caught]
    assert len(messages) == 2
    assert any("gradient norm is" in m and "Raise inner_steps" in m for m in messages)
    assert any("relative residual is" in m and "2 products" in m for m in messages)
    assert [row["adjoint/converged"] for row in result.history] == [0.0] * 4
    assert [row["inner/converged"] for row in result.history] == [0.0] * 4


def test_runs_repeat_bit_for_bit():
    def run():
        adam = partial(torch.optim.Adam, lr=0.1)
        return hg.Trainer(problem=PROBLEMS["ridge-per-feature"], estimator=EXACT, optimizer=adam, outer_steps=5).fit()

    assert torch.equal(run().last.hparams["l2"], run().last.hparams["l2"])


class Nothing(hg.Ridge):
    def hyperparameters(self):
        return {}


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="Nothing has no hyperparameters"):
        hg.Trainer(problem=Nothing(hg.diabetes()), estimator=EXACT, optimizer=SGD)
    with pytest.raises(ValueError, match="outer_steps must be at least 0, but it is -1"):
        hg.Trainer(problem=PROBLEMS["ridge"], estimator=EXACT, optimizer=SGD, outer_steps=-1)
    with pytest.raises(TypeError, match="Trainer.estimator must be a HypergradEstimator"):
        hg.Trainer(problem=PROBLEMS["ridge"], estimator=None, optimizer=SGD)  # pyright: ignore


def test_a_vector_of_one_entry_can_be_tuned():
    class One(hg.Ridge):
        def hyperparameters(self):
            return {"l2": hg.Hyperparameter(0.3, shape=(1,), constraint=hg.positive)}

    problem, plain = One(synthetic(0)), hg.Ridge(synthetic(0), l2=0.3)
    found, truth = (
        hg.fit(each, hg.Implicit(), partial(torch.optim.SGD, lr=0.1), 2, progress=False).last.hparams["l2"]
        for each in (problem, plain)
    )
    assert found.shape == (1,)
    assert found.item() == truth.item()


def test_lbfgsb_keeps_its_points_in_float64_over_a_resume():
    x = torch.full((2,), 0.3, dtype=torch.float32, requires_grad=True)
    optimizers = [hg.LBFGSB([x]), hg.LBFGSB([x])]

    def closure():
        x.grad = None
        loss = ((x - 1) ** 4).sum()
        loss.backward()
        return loss.item()

    closure()
    optimizers[0].step(closure)
    optimizers[1].load_state_dict(optimizers[0].state_dict())
    tried = [optimizer.state[x]["tried"] for optimizer in optimizers]
    assert len(tried[0]) == len(tried[1]) > 1
    for (u, loss, grad), (again, same_loss, same_grad) in zip(*tried, strict=True):
        assert torch.equal(u, again)
        assert loss == same_loss
        assert torch.equal(grad, same_grad)
        assert u.dtype == again.dtype == torch.float64
