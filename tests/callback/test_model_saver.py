"""What a run leaves to use: hyperparameters and a model as files, tables, and text that fits a screen."""

import csv
import json
from functools import partial

import pytest
import torch
from tables import PROBLEMS
from torch import nn
from torch.nn.functional import cross_entropy

import hypergrad as hg
from hypergrad.callback.hparams_file import save_hparams

ADAM = partial(torch.optim.Adam, lr=0.4)
NEWTON = hg.Implicit(solver=hg.Newton(), linsolve=hg.Dense(), inner_tol=1e-10)


def hparams_of(dtype=torch.float64):
    hparams = {
        "scalar": torch.tensor(torch.pi * 1e-7),
        "third": torch.tensor(1 / 3),
        "large": torch.tensor(1e300),
        "labelled": torch.tensor([1e-5, 2.0, -0.1]),
        "twice": torch.tensor([1.0, 2.0]),
        "one": torch.tensor([7.0]),
        "matrix": torch.arange(6.0).reshape(2, 3) / 7,
        "many": torch.linspace(0, 1, 1001),
        "none": torch.zeros(0),
        "empty matrix": torch.zeros(0, 3),
        "not: a, plain - name": torch.tensor(2.0),
    }
    return {name: x.to(dtype) for name, x in hparams.items()}


LABELS = {"labelled": ("age", "on", "1"), "twice": ("same", "same")}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_hyperparameters_come_back_bit_for_bit(dtype, tmp_path):
    hparams = hparams_of(dtype)
    save_hparams(tmp_path, hparams, LABELS, {"origin": "outer step 3"}, {})
    for source in (tmp_path, tmp_path / "hparams.yaml", str(tmp_path)):
        found = hg.load_hparams(source)
        assert list(found) == list(hparams)
        for name, value in hparams.items():
            assert found[name].dtype == dtype
            assert found[name].shape == value.shape
            assert torch.equal(found[name], value), name
    text = (tmp_path / "hparams.yaml").read_text()
    assert "origin: outer step 3" in text
    assert "many: hparams.pt" in text
    assert len(text.splitlines()) < 30
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hparams.pt", "hparams.yaml"]


def test_the_file_is_read_by_people(tmp_path):
    hparams = {name: hparams_of()[name] for name in ("third", "labelled", "matrix")}
    save_hparams(tmp_path, hparams, LABELS, {}, {})
    assert (tmp_path / "hparams.yaml").read_text().splitlines()[1:] == [
        "dtype: float64",
        "hparams:",
        "  third: 0.3333333333333333",
        "  labelled:",
        "    age: 1.0e-05",
        "    'on': 2.0",
        "    '1': -0.1",
        "  matrix: [[0.0, 0.14285714285714285, 0.2857142857142857], [0.42857142857142855, 0.5714285714285714, "
        "0.7142857142857143]]",
    ]


def test_a_file_written_by_hand_needs_a_name_and_a_number(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("hparams:\n  l2: 0.5\n  rates: [1, 2]\n")
    found = hg.load_hparams(file)
    assert found["l2"] == 0.5
    assert found["rates"].dtype == torch.get_default_dtype()
    for text, message in {
        "l2: 0.5": "must have a key `hparams`",
        "hparams:\n  l2: much": "hparams.l2 must be a number.*'much'",
        "hparams:\n  l2: [[1, 2], [3]]": "hparams.l2 must be a number",
    }.items():
        file.write_text(text)
        with pytest.raises(ValueError, match=message):
            hg.load_hparams(file)
    with pytest.raises(FileNotFoundError, match="hparams.yaml does not exist; name the folder of a run"):
        hg.load_hparams(tmp_path)


def test_plain_values_are_json(tmp_path):
    result = hg.fit(PROBLEMS["ridge-per-feature"], NEWTON, ADAM, 2, progress=False)
    text = json.dumps(hg.plain(result.hparams))
    assert torch.equal(torch.tensor(json.loads(text)["l2"]), result.hparams["l2"])


class Rises(hg.Quadratic):
    """Its best step is in the middle: the metric `distance` is lowest at step 2."""

    def metrics(self, params, hparams):
        self.calls = getattr(self, "calls", -2) + 1  # the first call is the trainer's own
        return {"distance": float((self.calls - 2) ** 2)}


def rising():
    return Rises(size=4)


def trainer(problem, steps, callbacks=(), **settings):
    return hg.Trainer(
        problem=problem, estimator=NEWTON, optimizer=ADAM, outer_steps=steps, callbacks=callbacks, **settings
    )


def test_a_result_has_the_best_and_the_last():
    result = trainer(rising(), 5, monitor="distance").fit()
    assert (result.best.step, result.last.step) == (2, 5)
    for name, value in result.hparams.items():
        assert torch.equal(value, result.best.hparams[name])
        assert not torch.equal(value, result.last.hparams[name])
    assert result.params is result.best.params
    assert result.model.params is result.best.params


def test_the_end_leaves_the_best(tmp_path):
    result = trainer(rising(), 5, [hg.ModelSaver(tmp_path)], monitor="distance").fit()
    params = torch.load(tmp_path / "model.pt", weights_only=True)
    assert all(torch.equal(value, result.best.params[name]) for name, value in params.items())
    assert torch.equal(hg.load_hparams(tmp_path)["shift"], result.best.hparams["shift"])
    assert "origin: outer step 2" in (tmp_path / "hparams.yaml").read_text()
    with pytest.raises(FileExistsError, match="belongs to another run"):
        trainer(rising(), 5, [hg.ModelSaver(tmp_path)], monitor="distance").fit()


def test_a_run_in_a_folder_leaves_it_too(tmp_path):
    result = hg.fit(PROBLEMS["ridge"], NEWTON, ADAM, 2, folder=tmp_path, progress=False)
    assert torch.equal(hg.load_hparams(tmp_path)["l2"], result.hparams["l2"])
    longer = hg.fit(PROBLEMS["ridge"], NEWTON, ADAM, 4, folder=tmp_path, progress=False)
    assert torch.equal(torch.load(tmp_path / "model.pt", weights_only=True)["weight"], longer.params["weight"])


class Interrupts(hg.Callback):
    def __init__(self, step):
        self.step = step

    def on_step(self, record):
        if record.step == self.step:
            raise KeyboardInterrupt


def test_an_interrupted_run_leaves_the_best_so_far_and_a_resumed_one_keeps_it(tmp_path):
    keeps = [hg.ModelSaver(tmp_path), hg.StateSaver(tmp_path)]
    problem = rising()
    with pytest.raises(KeyboardInterrupt):
        trainer(problem, 5, [*keeps, Interrupts(4)], monitor="distance").fit()
    assert "origin: outer step 2" in (tmp_path / "hparams.yaml").read_text()
    reached = torch.load(tmp_path / "model.pt", weights_only=True)
    problem.calls = 10
    result = trainer(problem, 6, keeps, monitor="distance").fit(resume=tmp_path)
    assert (result.best.step, result.last.step) == (2, 6)
    assert result.best.problem is problem
    kept = torch.load(tmp_path / "model.pt", weights_only=True)
    assert all(torch.equal(value, reached[name]) for name, value in kept.items())
    assert "origin: outer step 2" in (tmp_path / "hparams.yaml").read_text()


class Refuses(hg.Callback):
    def on_start(self, run):
        raise KeyboardInterrupt


def test_a_run_that_breaks_before_its_first_record_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        trainer(rising(), 5, [hg.ModelSaver(tmp_path), Refuses()]).fit()
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    with pytest.raises(KeyboardInterrupt):
        trainer(rising(), 5, [hg.ModelSaver(tmp_path), Interrupts(0)]).fit()
    assert "origin: outer step 0" in (tmp_path / "hparams.yaml").read_text()


def weighted():
    generator = torch.Generator().manual_seed(0)
    X, y = torch.randn(30, 4, generator=generator), torch.randint(3, (30,), generator=generator)
    return hg.Supervised(
        model=hg.softmax_regression(4, 3),
        loss=cross_entropy,
        train=(X[:12], y[:12]),
        dev=(X[12:20], y[12:20]),
        test=(X[20:], y[20:]),
        hyperparameters={"l2": hg.L2(init=0.1), "weights": hg.ExampleWeights()},
    )


def test_after_a_final_training_its_model_is_left_with_the_tuned_hyperparameters(tmp_path):
    problem = weighted()
    result = trainer(problem, 2, [hg.ModelSaver(tmp_path)], retrain=True).fit()
    assert hg.load_hparams(tmp_path)["weights"].shape == (12,)
    fresh = nn.Linear(4, 3)
    fresh.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    assert not torch.equal(fresh.weight, result.best.params["weight"])
    assert torch.equal(fresh.weight, result.module().get_parameter("weight"))
    assert result.retrained is not None
    loss = cross_entropy(fresh(problem.X_test), problem.y_test).item()
    assert loss == pytest.approx(result.retrained["test_loss"], rel=1e-12)
    assert "trained again on train and dev" in (tmp_path / "hparams.yaml").read_text()


def test_a_problem_without_a_module_says_so(tmp_path):
    result = hg.fit(PROBLEMS["ridge"], NEWTON, ADAM, 1, progress=False)
    with pytest.raises(NotImplementedError, match="Ridge trains no module of yours"):
        result.best.module()
    result.save(tmp_path)
    assert torch.equal(torch.load(tmp_path / "model.pt", weights_only=True)["weight"], result.params["weight"])


def test_a_search_leaves_its_best_trial(tmp_path):
    budget = hg.Budget(trials=5)
    result = hg.search(PROBLEMS["ridge"], NEWTON, hg.RandomSearch(), budget, [hg.ModelSaver(tmp_path)])
    assert torch.equal(hg.load_hparams(tmp_path)["l2"], result.best.hparams["l2"])


class Named(hg.Ridge):
    def hyperparameters(self):
        (space,) = super().hyperparameters().values()
        labels = tuple(f"feature {k}" for k in range(10))
        return {"l2": hg.Hyperparameter(space.init, space.shape, space.constraint, labels)}


def test_the_history_is_a_table_with_the_entries_of_vectors(tmp_path):
    pandas = pytest.importorskip("pandas")
    result = hg.fit(Named(hg.diabetes(), per_feature=True), NEWTON, ADAM, 3, progress=False)
    frame = result.to_frame()
    assert frame["step"].tolist() == [0, 1, 2, 3]
    for k, series in enumerate(result.trajectory["l2"].T):
        assert frame[f"hparam/l2/feature {k}"].tolist() == series.tolist()
    result.save(tmp_path)
    again = pandas.read_csv(tmp_path / "history.csv")
    pandas.testing.assert_frame_equal(again, frame, rtol=1e-12, check_dtype=False)
    with (tmp_path / "history.csv").open() as file:
        assert [float(row["loss/dev"]) for row in csv.DictReader(file)] == [row["loss/dev"] for row in result.history]
    assert list(hg.load_hparams(tmp_path)["l2"]) == list(result.hparams["l2"])


def test_without_pandas_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    result = hg.fit(PROBLEMS["ridge"], NEWTON, ADAM, 0, progress=False)
    assert result.rows() == result.history
    with pytest.raises(ImportError, match="pip install 'torch-hypergrad\\[table\\]'"):
        result.to_frame()


def wide():
    generator = torch.Generator().manual_seed(0)
    X, y = torch.randn(30, 60, generator=generator), torch.randint(3, (30,), generator=generator)
    names = [f"a_hyperparameter_of_quite_some_length_whose_number_is_{k}" for k in range(40)]
    return hg.Supervised(
        model=hg.perceptron(60, 3, hidden=(50, 50)),
        loss=cross_entropy,
        train=(X[:15], y[:15]),
        dev=(X[15:], y[15:]),
        hyperparameters={name: hg.L2(init=1e-3, per="tensor") for name in names},
    )


WIDE = {"wide": wide, "weights": weighted, "ridge": lambda: PROBLEMS["ridge-per-feature"]}


@pytest.mark.parametrize("make", WIDE.values(), ids=WIDE)
def test_results_fit_a_screen(make):
    problem = make()
    estimator = hg.Unrolled(solver=hg.GradientDescent(lr=0.01), inner_steps=2)
    result = hg.fit(problem, estimator, partial(torch.optim.SGD, lr=1e-3), 1, progress=False)
    found = estimator.estimate(problem, problem.init_hparams(), problem.init_params())
    for thing in (result, result.best, result.model, found):
        lines = repr(thing).splitlines()
        assert len(lines) < 24
        assert max(map(len, lines)) <= 80
        assert "tensor(" not in repr(thing)
    assert f"dev loss {result.best.outer_loss:.6g}" in repr(result.best)
    assert f"outer_loss = {found.outer_loss:.6g}" in repr(found)
