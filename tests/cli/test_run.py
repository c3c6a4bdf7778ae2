"""The command line as a person meets it."""

import json
import math
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from commands import call
from scipy.optimize import minimize_scalar

import hypergrad as hg
from hypergrad import run
from hypergrad.training.training import Training

ROOT = Path(__file__).parents[2]


def command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command in this process."""
    return call(run.main, *arguments, cwd=cwd)


def process(*arguments: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "hypergrad.run", *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | env,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def summaries(folder: Path) -> dict[str, dict]:
    return {path.parent.name: json.loads(path.read_text()) for path in folder.rglob("summary.json")}


def brute_force(seed: int = 3) -> float:
    """log λ of the lowest dev loss, by a fine grid on the closed form and a bounded search around its best point."""
    problem = hg.Ridge(hg.diabetes(seed=seed))

    def dev_loss(log_l2: float) -> float:
        hparams = {"l2": torch.tensor(math.exp(log_l2))}
        return problem.outer_loss(problem.solution(hparams), hparams, None).item()

    grid = torch.linspace(-12, 6, 1801).tolist()
    best = min(grid, key=dev_loss)
    found = minimize_scalar(dev_loss, bounds=(best - 0.02, best + 0.02), method="bounded", options={"xatol": 1e-9})
    return float(found.x)


@pytest.mark.slow
def test_every_estimator_finds_the_minimiser_of_brute_force(tmp_path):
    """But for the joint moves, which take other steps."""
    every = "estimator=glob(*,exclude=single_loop)"
    done = command("-m", "experiment=ridge", every, "outer_steps=11", "callback=[summary]", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    found = summaries(tmp_path)
    assert {name.split("estimator=")[1].split(",")[0] for name in found} == {
        *("unrolled", "reversible", "forward"),
        *("ift_auto", "ift_cg", "ift_neumann", "ift_dense"),
    }
    best = brute_force()
    for name, summary in found.items():
        assert abs(math.log(summary["last"]["hparam/l2"]) - best) < 1e-3, name


def test_a_multirun_ends_with_one_table_of_all(tmp_path):
    done = command(
        "-m", "experiment=ridge", "estimator=glob(ift_*)", "outer_steps=1", "callback=[summary]", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    table = done.stdout[done.stdout.index("all runs") :]
    found = summaries(tmp_path)
    assert len(found) == len([*(ROOT / "configs" / "estimator").glob("ift_*.yaml")])
    for name, summary in found.items():
        assert name in table
        assert f"{summary['last']['loss/dev']:.8g}" in table
    assert re.search(r"tensorboard --logdir \S+multirun/ridge/\S+\n", table)


def test_a_run_shows_and_keeps_everything(tmp_path):
    done = process("experiment=ridge", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for text in ("outer step 15/15", "l2", "inner loss", "dev loss", "test loss", "Hessian products", "wall time"):
        assert text in done.stdout
    (folder,) = (tmp_path / "outputs" / "ridge").iterdir()
    assert f"tensorboard --logdir {folder}" in done.stdout
    assert {path.name for path in folder.iterdir()} >= {"metrics.jsonl", "summary.json", "state-000015.pt", ".hydra"}
    first, last = (json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()[::15])
    assert last["loss/dev"] < first["loss/dev"]


@pytest.mark.parametrize(
    ("experiment", "solver"),
    [
        ("ridge", "momentum"),
        pytest.param("lasso", "proximal_gradient", marks=pytest.mark.slow),
        pytest.param("ridge", "gradient_descent", marks=pytest.mark.slow),
        pytest.param("lasso", "coordinate_descent", marks=pytest.mark.slow),
    ],
)
def test_solvers_compose_with_every_linear_solver(experiment, solver, tmp_path):
    """But for those that need a network, whose layers have Kronecker factors."""
    names = sorted(path.stem for path in (ROOT / "configs" / "linsolve").glob("*.yaml"))
    names = [name for name in names if "kfac" not in name and "low_rank_gauss_newton" not in name]
    done = command(
        "-m",
        f"experiment={experiment}",
        "estimator=ift_cg",
        f"solver={solver}",
        f"linsolve={','.join(names)}",
        "outer_steps=1",
        "callback=[summary]",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    losses = [summary["last"]["loss/dev"] for summary in summaries(tmp_path).values()]
    assert len(losses) == len(names)
    assert max(losses) - min(losses) < 1e-6


@pytest.mark.slow
def test_implicit_finds_the_same_optimum_by_every_solver_that_gets_there(tmp_path):
    solvers = ["gradient_descent", "nesterov", "adam", "lbfgs", "newton"]
    done = command("-m", f"solver={','.join(solvers)}", "outer_steps=1", "callback=[summary]", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    losses = [summary["last"]["loss/dev"] for summary in summaries(tmp_path).values()]
    assert len(losses) == len(solvers)
    assert max(losses) - min(losses) < 1e-6


@pytest.mark.slow
def test_every_solver_trains_under_unrolled_or_says_why_not(tmp_path):
    done = command("-m", "estimator=unrolled", "solver=glob(*)", "outer_steps=0", "callback=[summary]", cwd=tmp_path)
    solvers = {path.stem for path in (ROOT / "configs" / "solver").glob("*.yaml")}
    found = summaries(tmp_path).items()
    finished = {name.split("solver=")[1] for name, summary in found if summary["status"] == "finished"}
    assert finished == solvers - {"lbfgs", "newton", "coordinate_descent", "proximal_gradient"}
    assert "│ yes" not in done.stdout  # nothing was to converge
    assert "│ no" not in done.stdout
    for name in ("LBFGS", "Newton", "CoordinateDescent"):
        assert f"a step of {name} cannot be differentiated" in done.stderr
    assert "ProximalGradient trains an L1Problem" in done.stderr


def test_a_learning_rate_can_follow_a_schedule_by_name(tmp_path):
    chosen = ("estimator=unrolled", "+schedule@solver.lr=cosine", "solver.lr.base=0.02")
    done = command(*chosen, "outer_steps=0", "callback=[summary]", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (summary,) = summaries(tmp_path).values()
    assert summary["last"]["loss/inner"] < 0.66


@pytest.fixture
def main(tmp_path, monkeypatch, capsys):
    """The command line in this process: exit code and what it printed to standard error."""

    def call(*arguments: str) -> tuple[object, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("HYDRA_FULL_ERROR", "")
        monkeypatch.setattr(sys, "argv", ["hypergrad", *arguments])
        monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
        with pytest.raises(SystemExit) as caught:
            run.main()
        return caught.value.code, f"{caught.value.code}\n{capsys.readouterr().err}"

    return call


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["estimatr=unrolled"], "The choices are: allow_targets, any_world, callback, data, device"),
        (["solver.lrr=3"], "Did you mean 'lr'?"),
        (["inner_steps=40"], "Did you mean estimator.inner_steps?"),  # and not outer_steps, which is as near
        (["experiment=rigde"], "Could not find 'experiment/rigde'"),
        (["experiment=rigde"], "Did you mean 'ridge'?"),
        (["experment=ridge"], "error: Did you mean 'experiment'? Could not override 'experment'"),
        (
            ["estimator=unroled"],
            "Available options in 'estimator':\n\t"
            + "\n\t".join(["forward", "ift_auto", "ift_cg", "ift_dense", "ift_neumann", "reversible"])
            + "\n\tsingle_loop\n\tunrolled",
        ),
        (["outer_steps=abc"], "Trainer.outer_steps must be an integer, but it is 'abc' of type str"),
        (["linsolve.max_iter=1.5"], "linsolve: CG.max_iter must be an integer, but it is 1.5"),
        (["+linsolve.maxiter=3"], "The choices are: max_iter, preconditioner, tol."),
        (["solver=lbfgs", "+solver.lr=0.1"], "If an experiment sets lr, ~solver.lr leaves it out."),
        (["solver.lr=-1"], "solver: GradientDescent.lr must be greater than 0, but it is -1"),
        (["solver=adam", "+solver.amsgrad=true"], "solver: Adam has no option amsgrad: its running maximum has a kink"),
        (["solver=adamw"], "the weight_decay of AdamW leads elsewhere. Set it to 0"),
        (["solver.lr=rate"], "'rate' is neither a number nor the name of a hyperparameter; the problem has l2"),
        (["solver.lr=0.5"], "The learning rate 5.00e-01 is above 1.99e-01, the bound for stability"),
        (["problem.l2=-1"], "init = -1 violates the constraint"),
        (["data.dev=0"], "The dev part would hold 0 of 442 examples"),
        (["dtype=float16"], "dtype must be one of float32, float64, but it is float16; for losses in bfloat16 give"),
        (
            ["precision=fp16"],
            "precision must be one of float32, tf32, bf16-mixed, bf16-true, but it is 'fp16'; float16 is",
        ),
        (["problem._target_=nowhere.Thing"], "No module named 'nowhere'"),
        (
            ["problem._target_=hypergrad.data.tables.diabets"],
            "problem._target_: hypergrad has nothing of the name hypergrad.data.tables.diabets. Did you mean "
            "hypergrad.diabetes?",
        ),
        (
            ["problem._target_=torch.nn.functional.crossentropy"],
            "The module torch.nn.functional has no 'crossentropy'. Did you mean 'cross_entropy'?",
        ),
        (["~experiment"], "No problem is configured"),
        (["problem._target_=torch.nn.Identity"], "problem must be an InnerProblem"),
        (["optimizer._target_=torch.optim.Adamm"], "Adamm"),
        (["optimizer=adamm"], "Could not find 'optimizer/adamm'"),
        (["optimizer=sgd", "optimizer.lr=1e400"], "lower the lr"),
        (["folds=1"], "folds must be an integer from 2 to the 332 examples, but it is 1"),
        (["problem=quadratic", "folds=5"], "Quadratic does not define `pooled_targets`, which folds"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_a_mistake_is_named_without_a_traceback(main, arguments, message):
    code, printed = main(*arguments)
    assert code not in (0, None)
    assert message in printed
    assert "Traceback" not in printed
    assert "HYDRA_FULL_ERROR=1 shows the traceback." in printed


def test_the_traceback_can_be_had(tmp_path):
    done = process("outer_steps=abc", cwd=tmp_path, HYDRA_FULL_ERROR="1")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


@pytest.mark.slow
def test_folds_judge_and_a_final_training_uses_all(tmp_path):
    done = command("folds=5", "retrain=true", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    ((_, summary),) = summaries(tmp_path).items()
    problem = hg.k_fold(hg.Ridge(hg.diabetes(seed=3)), 5, seed=3)
    hparams = {"l2": torch.tensor(summary["last"]["hparam/l2"])}
    dev_loss = problem.outer_loss(problem.solution(hparams), hparams, None).item()
    assert summary["last"]["loss/dev"] == pytest.approx(dev_loss, rel=1e-6)
    assert summary["last"]["hypergradient/norm"] < 1e-6
    pool, best = problem.pool, {"l2": torch.tensor(summary["best"]["hparam/l2"])}
    test_loss = float(pool.metrics(pool.solution(best), best)["test_loss"])
    assert summary["retrained"]["test_loss"] == pytest.approx(test_loss, rel=1e-6)
    assert f"retrained on train and dev at the best hyperparameters: test loss {test_loss:.6g}" in done.stdout
    assert "adjoint system" not in done.stdout


def test_an_error_keeps_the_last_good_state(tmp_path):
    """A step of the optimiser leads to a penalty at which the learning rate is too high."""
    done = command("optimizer=sgd", "optimizer.lr=6000", "problem.l2=1e-2", cwd=tmp_path)
    assert done.returncode == 1
    assert "Training blew up" in done.stderr
    assert re.search(r"outer step \d+, where the optimiser tried l2 = .* lower the lr of the optimiser", done.stderr)
    (folder,) = (tmp_path / "outputs" / "ridge").iterdir()
    rows = (folder / "metrics.jsonl").read_text().splitlines()
    assert torch.load(folder / f"state-{len(rows) - 1:06d}.pt", weights_only=True)["step"] == len(rows) - 1
    assert json.loads((folder / "summary.json").read_text())["status"] == "failed"


def test_a_run_goes_on_from_the_command_line(tmp_path):
    chosen = ("problem.per_feature=true", "optimizer=adam")
    whole = command(*chosen, "outer_steps=8", "hydra.run.dir=whole", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    assert command(*chosen, "outer_steps=5", "hydra.run.dir='it is cut'", cwd=tmp_path).returncode == 0
    done = command("resume=it is cut", "outer_steps=8", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "outer step 8/8" in done.stdout
    rows = [
        [{k: v for k, v in json.loads(line).items() if k != "run/seconds"} for line in file.read_text().splitlines()]
        for file in (tmp_path / "whole" / "metrics.jsonl", tmp_path / "it is cut" / "metrics.jsonl")
    ]
    assert rows[0] == rows[1]
    other = command("resume=it is cut", "optimizer=sgd", cwd=tmp_path)
    assert other.returncode == 1
    assert "The state belongs to another experiment: its optimizer was Adam" in other.stderr
    assert (tmp_path / "it is cut" / ".hydra" / "overrides.yaml").read_text().count("optimizer=adam") == 1
    assert "nowhere does not exist" in command("resume=nowhere", cwd=tmp_path).stderr


def test_a_failed_run_does_not_take_the_others_down(tmp_path):
    done = command("-m", "solver.lr=0.5,0.1", "outer_steps=1", cwd=tmp_path)
    assert done.returncode == 1
    assert "1 of 2 runs failed" in done.stderr
    assert "Training blew up" in done.stderr
    assert sorted(summary["status"] for summary in summaries(tmp_path).values()) == ["failed", "finished"]


def test_a_sweep_marks_what_did_not_converge(tmp_path):
    done = command("-m", "estimator.inner_steps=20,2000", "outer_steps=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = done.stdout[done.stdout.index("all runs") :].splitlines()
    assert any("inner_steps=20," in row and " no " in row for row in rows)
    assert any("inner_steps=2000," in row and " yes " in row for row in rows)


def blocks(page: str, language: str = "python") -> list[str]:
    """The blocks of a page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(), flags=re.MULTILINE | re.DOTALL)


def block(page: str, language: str, holds: str) -> str:
    """The one block of a page in a language that holds a text."""
    (block,) = (text for text in blocks(page, language) if holds in text)
    return block


@pytest.fixture
def users_folder(tmp_path):
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    page = "docs/start/problem.md"
    (tmp_path / "my_problem.py").write_text(block(page, "python", "class MyProblem"))
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text(block(page, "yaml", "my_problem"))
    return tmp_path


def test_a_problem_of_ones_own_is_short_and_runs(users_folder):
    assert len((users_folder / "my_problem.py").read_text().split("\n    def ")) <= 6
    assert len((users_folder / "conf" / "experiment" / "mine.yaml").read_text().splitlines()) <= 6
    done = command("--config-dir", "conf", "experiment=mine", cwd=users_folder)
    assert done.returncode == 0, done.stderr
    (summary,) = summaries(users_folder / "outputs").values()
    assert summary["last"]["loss/dev"] < summary["first"]["loss/dev"]
    done = command(
        "experiment=mine", "--config-dir", "conf", "outer_steps=0", "callback.progress=null", cwd=users_folder
    )
    assert done.returncode == 0, done.stderr


def test_a_mistake_in_ones_own_problem_is_shown_where_it_is(users_folder):
    path = users_folder / "my_problem.py"
    path.write_text(path.read_text().replace("X, y = self.dev_part", "X, y = self.dev_part.X.T, self.dev_part.y"))
    done = command("--config-dir", "conf", "experiment=mine", cwd=users_folder)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    last = len(path.read_text().splitlines())
    assert re.search(rf"at \S+my_problem.py:{last} in outer_loss", done.stderr)


def test_readme_shows_a_model_of_ones_own_in_fifteen_lines(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (code,) = blocks("README.md")
    assert len([line for line in code.splitlines() if line]) <= 15
    assert ", 20, warm_start=False" in code
    names: dict = {}
    exec(compile(code.replace(", 20, warm_start=False", ", 2, warm_start=False"), "README.md", "exec"), names)
    result, (X, y) = names["result"], names["dev"]
    assert result.best.outer_loss < result.first.outer_loss
    accuracy = (names["model"](X).argmax(1) == y).double().mean().item()
    assert accuracy == pytest.approx(result.best.metrics["dev_accuracy"], abs=1e-6)


def test_the_lasso_experiment_ends_within_a_thousandth_of_the_best_of_a_hundred_penalties(tmp_path):
    done = command("experiment=lasso", "callback=[summary]", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    ((_, summary),) = summaries(tmp_path).items()
    problem, losses = hg.Lasso(hg.diabetes(seed=3)), []
    params = problem.init_params()
    for ratio in torch.logspace(0, -3, 100):
        hparams = {"l1": ratio * problem.l1_max}
        params = Training(solver=hg.CoordinateDescent(), steps=200, tol=1e-6).run(problem, hparams, params).params
        losses.append(problem.outer_loss(params, hparams, None).item())
    assert summary["last"]["loss/dev"] <= 1.001 * min(losses)


def script(code, folder):
    """What a script of one's own prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=folder,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_model_of_ones_own_goes_home(tmp_path):
    made, problem, run, home, *_ = blocks("docs/start/model.md")
    for usual, few in [(", 5, warm_start=False", ", 2, warm_start=False"), ("inner_steps=60", "inner_steps=20")]:
        assert usual in run
        run = run.replace(usual, few)
    script(made + problem + run, tmp_path)
    summary = json.loads((tmp_path / "runs" / "cnn" / "summary.json").read_text())
    assert summary["best"]["loss/dev"] < summary["first"]["loss/dev"]
    # In another process: its own module, and data as it comes.
    load, _ = home.split("assert ")
    accuracy = script(made + load, tmp_path).split()[0]
    assert float(accuracy) == pytest.approx(summary["best"]["metric/dev_accuracy"], abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "is_said"),
    [(["problem=ridge", "data.seed=1"], True), (["problem=ridge"], False), (["problem=quadratic"], False)],
    ids=["nothing", "data", "problem"],
)
def test_a_seed_that_changes_nothing_is_said(arguments, is_said, tmp_path):
    done = command(*arguments, "seed=5", "outer_steps=0", "callback=[jsonl]", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert ("warning: seed=5 changes nothing: hypergrad.Ridge draws no random numbers" in done.stderr) is is_said


def test_the_printed_commands_can_be_pasted(tmp_path):
    (folder := tmp_path / "my runs").mkdir()
    done = command("outer_steps=1", cwd=folder)
    (run_folder,) = (folder / "outputs" / "ridge").iterdir()
    assert f"tensorboard --logdir '{run_folder}'\n" in done.stdout


def test_the_value_of_an_option_may_hold_an_equals_sign(tmp_path):
    (tmp_path / "lr=0.1" / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "lr=0.1" / "conf" / "experiment" / "mine.yaml").write_text(
        "# @package _global_\ndefaults: [ridge]\nname: mine\n"
    )
    done = command("--config-dir", "lr=0.1/conf", "-m", "experiment=mine", "outer_steps=1,2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(summaries(tmp_path)) == 2
