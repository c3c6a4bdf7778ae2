"""The outer loop on two ranks: the same branch on both, one folder, and the same end after an interruption."""

import pytest
import ranks

SECONDS = 150
"""For all cases, which take 5 on processors of their own."""


def of(case: str):
    return ranks.run("loop_cases", seconds=SECONDS).of(case)


def test_ranks_record_one_run_and_have_the_same_results():
    first, second = of("recorded")
    assert first == second
    assert first["steps"] == [0, 1, 2, 3, 4]
    assert first["stopped"] == "outer_steps"
    assert sum(name.startswith("events.out") for name in first["names"]) == 1
    assert {"metrics.jsonl", "history.jsonl", "summary.json", "hparams.yaml", "model.pt"} <= set(first["names"])
    assert [name for name in first["names"] if name.startswith("state-")] == ["state-000003.pt", "state-000004.pt"]
    assert not any(name.endswith(".part") for name in first["names"])
    assert first["distance"] < 1e-12


@pytest.mark.parametrize(("case", "signal"), [("terminated", "SIGTERM"), ("between records", "SIGTERM")])
def test_sigterm_to_one_rank_ends_all_with_a_state_that_goes_on_to_the_same_bits(case, signal):
    for found in of(case):
        assert found["said"] == ["Terminated", f"Rank 1 was asked to end ({signal})."]
        assert found["saved"] == {"terminated": 4, "between records": 10}[case]
        assert found["same"]


def test_an_interrupt_of_one_rank_returns_the_result_on_all():
    for found in of("interrupted"):
        assert found == {"said": [], "saved": 4, "same": True}


def test_all_ranks_take_the_same_branch():
    first, second = of("decisions")
    assert first == second
    stopped = {name: run[0] for name, run in first.items()}
    assert stopped == {name: "patience" if name == "patient" else "outer_steps" for name in first}


def test_an_error_of_one_rank_is_that_of_all():
    first, second = of("disk is full")
    assert first[0] == "OSError"
    assert "No space left" in first[1]
    assert "This was on rank 0 of 2." in first[1]
    assert second == ["RankError", second[1]]
    assert second[1].startswith("Rank 0 failed: OSError: [Errno 28] No space left on device")


def test_a_folder_in_use_is_refused_on_all_ranks():
    first, second = of("in use")
    assert first[0] == "FolderInUseError"
    assert second[0] == "RankError"
    assert "is in use by process" in second[1]


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("hparams differ", "l2 on rank 1 differs from l2 on the other ranks, after outer step 10."),
        (
            "start differs",
            "the parameter 0.weight on rank 1 differs from the parameter 0.weight on the other ranks",
        ),
        ("data differ", "the data X on rank 1 differs from the data X on the other ranks"),
    ],
)
def test_ranks_that_differ_are_named(case, message):
    for kind, said in of(case):
        assert kind == "RankError"
        assert message in said


def test_another_number_of_ranks_is_an_error_or_a_stated_change():
    first, second = of("other world")
    assert first["said"][0] == "CheckpointError"
    assert "The run had 1 process until this state, and here it has 2" in first["said"][1]
    assert "any_world=true" in first["said"][1]
    assert second["said"][0] == "CheckpointError"
    assert len(first["warned"]) == 1
    assert "differ by rounding errors" in first["warned"][0]
    assert second["warned"] == []
    assert (first["step"], first["world"]) == (second["step"], second["world"]) == (6, 2)


def test_each_rank_goes_on_with_its_own_random_streams():
    first, second = of("own streams")
    assert first["drawn"] == first["wanted"]
    assert second["drawn"] == second["wanted"]
    assert first["drawn"] != second["drawn"]


@pytest.mark.slow
def test_an_evaluation_that_fails_on_one_rank_is_not_a_rejected_step():
    first, second = ranks.run("loop_cases", function="slow_cases", seconds=SECONDS, forks=False).of(
        "evaluation fails on one"
    )
    assert "NonFiniteError: on purpose" in second[1]
    assert first[0] == "RankError"
