"""The harness of the benchmarks at tiny size: what it searches for it finds, and what a peer says it hears."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from slow_cases import mostly_slow

import hypergrad as hg
from benchmarks.case import Case
from benchmarks.commits import explain_difference
from benchmarks.contestants import BY_BUDGET, REFERENCE, local
from benchmarks.exact import Exact
from benchmarks.gpt_bytes import counted
from benchmarks.gpu.sections import SECTIONS
from benchmarks.gpu.table import Row, measure, require
from benchmarks.implicit import GOALS
from benchmarks.measure import Entrant, compare
from benchmarks.networks import GPT
from benchmarks.overhead import BARE, BY_HAND, MODELS, kernels
from benchmarks.overhead import compare as compare_overhead
from benchmarks.peer import Peer
from benchmarks.peers.memory import peak_megabytes
from benchmarks.problem.bilevel_logistic import BilevelLogistic
from benchmarks.problem.bilevel_quadratic import BilevelQuadratic
from benchmarks.problem.softmax import DecayingScales
from benchmarks.race import Race
from benchmarks.search import least_budget
from benchmarks.single_loop import BY_HAND as SOBA_BY_HAND
from benchmarks.single_loop import COMPILED, by_estimator, by_trainer, counts, growth, save, works
from benchmarks.single_loop import compare as compare_single_loop
from benchmarks.training import Training

ROOT = Path(__file__).parent.parent
FAKE = """
import numpy as np
from benchmarks.peers.protocol import serve

def load(arrays):
    print("what a library prints is no reply")
    return {"halves": (lambda K, scale: scale * arrays["w"] / 2**K, 1), "fails": (lambda K, scale: 1 / 0, 0)}

serve(load, lambda: "a fake")
"""


@pytest.mark.parametrize("guess", [1, 2, 13, 36, 37, 38, 500])
@pytest.mark.parametrize("least", [1, 2, 37, 99, 100, 101])
def test_the_search_finds_the_least_budget(least, guess):
    found = least_budget(lambda K: 1.0 if least > K else 1e-3, 1e-2, most=100, guess=guess)
    assert found == (least if least <= 100 else None)


def test_a_right_guess_costs_two_calls():
    tried = []
    assert least_budget(lambda K: tried.append(K) or 1 / K, 1 / 40, most=100, guess=40) == 40
    assert sorted(tried) == [39, 40]


@pytest.fixture
def case(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return Case.of(DecayingScales(num_train=300, num_dev=100, num_features=20))


def test_a_case_is_trained_once(case):
    assert case.inner_gradient < 1e-7
    again = Case.of(DecayingScales(num_train=300, num_dev=100, num_features=20))
    assert again.path == case.path
    assert torch.equal(again.params["W"], case.params["W"])


def test_all_of_ours_reach_the_exact_hypergradient(case):
    exact = Exact.of(case)
    assert exact.residual < 1e-12
    assert exact.disagreement < 1e-9
    contestants = local(case, scale=0.5)
    race = Race({name: c for name, c in contestants.items() if "Neumann" not in name}, exact, most=300)
    for goal in GOALS:
        entries = race.to(goal)
        assert {name for name in entries if name in BY_BUDGET} == BY_BUDGET.keys() - {"hypergrad, Neumann"}
        for name, entry in entries.items():
            assert entry.budget is not None
            if entry.contestant.budgeted:
                assert entry.trial.error <= goal, name
        assert entries[REFERENCE].clocked()() > 0


@pytest.fixture
def fake(tmp_path, monkeypatch):
    np.savez(tmp_path / "case.npz", w=np.arange(3.0))
    (tmp_path / "fake_peer.py").write_text(FAKE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with Peer(sys.executable, "fake_peer", tmp_path / "case.npz") as peer:
        yield peer


def test_a_peer_answers(fake):
    assert (fake.contestants, fake.note) == (["halves", "fails"], "a fake")
    outcome = fake.ask("halves", budget=2, scale=3.0, calls=2)
    assert outcome.hypergradient.tolist() == [0, 0.75, 1.5]
    assert outcome.products == 3
    assert outcome.seconds > 0


def test_a_peer_that_dies_is_quoted(fake):
    with pytest.raises(RuntimeError, match=r"(?s)exit code 1 .*ZeroDivisionError.*scripts/peers-env"):
        fake.ask("fails", budget=2, scale=3.0, calls=1)


def test_a_peer_without_its_library_is_quoted(tmp_path):
    with pytest.raises(RuntimeError, match=r"(?s)exit code 1 .*No module named 'jax'.*scripts/peers-env"):
        Peer(sys.executable, "benchmarks.peers.with_jaxopt", tmp_path / "none.npz")


def test_the_workers_do_not_import_hypergrad():
    code = "import sys, benchmarks.peers.protocol; sys.exit('hypergrad' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_loop_by_hand_is_ours_by_every_tape(momentum):
    training = Training("", lambda: DecayingScales(30, 10, 4), num_steps=7, lr=0.1, momentum=momentum)
    right = training.by_hand()()
    for tape in (hg.Graph(), hg.Store(), hg.Checkpoint()):
        assert torch.allclose(training.estimate(tape, compile=False)(), right, rtol=1e-10, atol=1e-14)
    assert training.plain()().shape == (40,)


def test_what_differs_stops_the_comparison():
    class Wrong(Entrant):
        def __init__(self, value):
            self.value = value

        def run(self):
            return torch.tensor([self.value]), 1.0

        def megabytes(self):
            return 2.0

    rows = compare("", {"a": Wrong(1.0), "b": Wrong(1.0)}, reference="a", truth="b")
    assert (rows["a"].ratio, rows["b"].error, rows["b"].megabytes) == (1.0, 0.0, 2.0)
    with pytest.raises(RuntimeError, match="b is off by 5.0e-01, which is more than 1e-08"):
        compare("", {"a": Wrong(1.0), "b": Wrong(1.5)}, reference="a", truth="a")


def test_recomputation_and_micro_batches_divide_the_bytes_of_a_product():
    torch.manual_seed(0)
    model = GPT(vocabulary=100, length=16, width=16, heads=2, layers=2)
    settings = {}, {"recompute": True}, {"recompute": True, "micro_batch": 2}
    plain, again, both = (product for _, _, product in counted(model, 4, 16, settings))
    assert again < 0.8 * plain
    assert both < 0.6 * plain


def test_the_peak_of_a_call_is_above_what_was_held_before():
    held = np.ones(2_000_000)
    result, megabytes = peak_megabytes(lambda: np.ones(4_000_000))
    assert 28 < megabytes < 40
    assert len(result) + len(held) == 6_000_000


def of_a_gpu(*arguments):
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--tiny", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)


@pytest.mark.parametrize("section", mostly_slow(list(SECTIONS), []))
def test_every_section_for_a_gpu_runs_small_on_a_cpu(section):
    ended = of_a_gpu("--section", section, "--minutes", "14")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"{section}: done in" in ended.stdout
    assert "WRONG" not in ended.stdout


@pytest.mark.slow
def test_a_section_whose_time_is_over_leaves_the_others():
    ended = of_a_gpu("--section", "resume", "correctness", "--minutes", "0.09")
    assert ended.returncode == 1
    assert "resume: stopped after its" in ended.stdout
    assert "correctness: no time left" in ended.stdout


def test_a_row_that_fails_or_is_not_there_leaves_the_others(capsys):
    def missing():
        require(hg.Store, "a_setting")

    one = torch.ones(1)
    rows = {
        "right": Row(lambda: lambda: one),
        "missing": Row(missing),  # pyright: ignore[reportArgumentType]
        "fails": Row(lambda: lambda: one @ torch.ones(2)),
        "also right": Row(lambda: lambda: 1.001 * one, tolerance=0.01),
    }
    assert not measure("title", rows, torch.device("cpu"), tolerance=1e-8)
    shown = capsys.readouterr().out
    assert "Store has no a_setting in this version" in shown
    assert "fails: RuntimeError" in shown
    assert "WRONG" not in shown
    assert measure(
        "title", {k: rows[k] for k in ("right", "missing", "also right")}, torch.device("cpu"), tolerance=1e-8
    )
    assert not measure(
        "title", {k: Row(rows[k].make) for k in ("right", "also right")}, torch.device("cpu"), tolerance=1e-8
    )
    assert "WRONG: more than 1e-08" in capsys.readouterr().out


@pytest.mark.parametrize("name", MODELS)
def test_around_a_gradient_and_a_step_there_are_hardly_more_kernels_than_by_hand(name):
    model = MODELS[name]
    model.trainings()["Graph"]()  # second derivatives of the model are checked once
    counts = {way: kernels(work) for way, work in {**model.gradients(), **model.trainings()}.items()}
    assert counts["Oracle"] == counts[BARE]
    assert counts["hg.Training"] <= counts["torch.optim.SGD(foreach=True), in place"] + 2 * counts[BARE]
    if name != "mlp":  # whose few steps are all start and end
        assert counts["Graph"] <= 1.05 * counts[BY_HAND]
        assert counts["Store"] <= 1.35 * counts[BY_HAND]


def test_the_overhead_is_measured_of_equal_results():
    model = MODELS["mlp"]
    shown = compare_overhead("", model.gradients(), BARE, rounds=2, calls=1)
    assert shown[BARE] == 1
    wrong = {"right": lambda: [torch.ones(2)], "wrong": lambda: [torch.zeros(2)]}
    with pytest.raises(RuntimeError, match="wrong is off by"):
        compare_overhead("", wrong, "right", rounds=2, calls=1)


def test_two_commits_may_choose_other_algorithms_as_long_as_both_reach_the_goal():
    """Norms of hypergradients have to be the same; errors have to be below the goal."""
    assert explain_difference(9.0027e-05, 9.0899e-05, 1e-4) == ""
    assert explain_difference(1.1e-4, 1.1e-4, 1e-4) == ""  # rows that stop by a tolerance need not reach it
    for met in (1.1e-4, float("nan")):
        assert explain_difference(met, 9e-5, 1e-4) == (
            f"gives {met!r} in the new checkout and 9e-05 in the old one, which are not both at most 0.0001"
        )
    assert explain_difference(1.0 + 1e-7, 1.0, None) == ""
    assert explain_difference(1.0001, 1.0, None) == "gives 1.0001 in the new checkout and 1.0 in the old one"


BILEVEL = {
    "quadratic": lambda: BilevelQuadratic(num_train=64, num_dev=32, size=6, num_hparams=3, batch_size=16),
    "logistic": lambda: BilevelLogistic(num_train=64, num_dev=32, num_features=4, batch_size=16),
}


@pytest.mark.parametrize("make", BILEVEL.values(), ids=BILEVEL)
def test_loops_by_hand_and_ours_end_at_the_same_hyperparameters(make, tmp_path):
    problem = make()
    rows = {name: work for name, work in works(problem, 12).items() if name != COMPILED}  # that compiles for seconds
    shown = compare_single_loop("", rows, steps=12, rounds=2)
    assert shown[SOBA_BY_HAND] == 1
    wrong = {SOBA_BY_HAND: lambda: torch.ones(2), "wrong": lambda: torch.zeros(2)}
    with pytest.raises(RuntimeError, match="wrong is off by"):
        compare_single_loop("", wrong, steps=1, rounds=2)
    with np.load(save(problem, 12, tmp_path)) as saved:
        assert saved["batches"][5].tolist() == [problem.inner_partition.index(5), problem.outer_partition.index(5)]


@pytest.mark.parametrize("work", [by_estimator, by_trainer])
def test_an_iteration_has_one_inner_gradient_one_joint_walk_and_one_outer_gradient(work):
    problem = BILEVEL["quadratic"]()
    found = counts(problem, lambda steps: work(problem, steps))
    assert found["inner losses"] == 1
    assert found["outer losses"] <= 1.2  # with the losses on all of dev, every ten steps
    assert found["backward passes"] <= 2  # that of the joint product goes through the outer loss too


def test_the_growth_of_the_time_of_a_step_is_a_ratio():
    assert growth(BILEVEL["quadratic"](), rounds=2, steps=(4, 8)) > 0
