import json
from functools import partial

import pytest
import torch
from rich.console import Console
from tables import PROBLEMS
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import hypergrad as hg
from hypergrad.callback.jsonl import JSONLines
from hypergrad.callback.progress import ProgressBar
from hypergrad.callback.state_saver import StateSaver
from hypergrad.callback.summary import Summary
from hypergrad.callback.tensorboard import TensorBoard

SGD = partial(torch.optim.SGD, lr=1e-3)
ESTIMATORS = {"implicit": hg.Implicit(solver=hg.Momentum(lr=0.05)), "unrolled": hg.Unrolled(inner_steps=20)}
CONFIG = {
    "solver": {"_target_": "some.module.Momentum", "lr": 0.05, "name": "momentum"},
    "seed": 0,
    "parts": [1, 2],
    "flag": True,
    "none": None,
}


def fit(problem, callbacks, *, estimator=ESTIMATORS["implicit"], steps=3):
    return hg.Trainer(problem=problem, estimator=estimator, optimizer=SGD, outer_steps=steps, callbacks=callbacks).fit(
        CONFIG
    )


def rows_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)
@pytest.mark.parametrize("name", ["ridge", "quadratic"])
def test_tensorboard_and_json_lines_hold_the_same_numbers(tmp_path, name, estimator):
    result = fit(PROBLEMS[name], [TensorBoard(tmp_path), JSONLines(tmp_path)], estimator=estimator)
    rows = rows_of(tmp_path)
    events = EventAccumulator(str(tmp_path), size_guidance={"histograms": 0}).Reload()
    tags = set(events.Tags()["scalars"])
    assert [row["step"] for row in rows] == [0, 1, 2, 3]
    assert tags == {tag for tag, x in rows[0].items() if tag != "step" and not isinstance(x, list)}
    for tag in tags:
        series = events.Scalars(tag)
        assert [event.step for event in series] == [0, 1, 2, 3]
        assert [event.value for event in series] == pytest.approx([row[tag] for row in rows], rel=1e-6)
    assert rows[-1]["loss/dev"] == result.last.outer_loss  # JSON keeps every digit


def test_the_config_and_one_row_of_hparams_stand_in_the_run_itself(tmp_path):
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData  # pyright: ignore

    result = fit(PROBLEMS["ridge"], [TensorBoard(tmp_path)])
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []
    assert len(list(tmp_path.glob("events.*"))) == 1
    events = EventAccumulator(str(tmp_path)).Reload()
    text = events.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "name: momentum" in text
    content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    chosen = HParamsPluginData.FromString(content).session_start_info.hparams
    assert chosen["solver.lr"].number_value == 0.05
    assert chosen["solver.name"].string_value == "momentum"
    assert chosen["solver"].string_value == "Momentum"
    assert chosen["flag"].number_value == 1
    content = events.summary_metadata["_hparams_/experiment"].plugin_data.content
    shown = {info.name.tag for info in HParamsPluginData.FromString(content).experiment.metric_infos}
    assert {"loss/dev", "loss/test"} <= shown
    assert events.Scalars("loss/dev")[-1].value == pytest.approx(result.last.outer_loss)


def test_checkpoint_holds_the_last_state(tmp_path):
    result = fit(PROBLEMS["quadratic"], [StateSaver(tmp_path, every=2)])
    state = torch.load(tmp_path / "state-000003.pt", weights_only=True)
    assert state["step"] == 3
    assert torch.equal(state["hparams"]["shift"], result.last.hparams["shift"])
    assert torch.equal(state["params"]["a"], result.last.params["a"])
    with pytest.raises(ValueError, match="every must be at least 1"):
        StateSaver(tmp_path, every=0)


class BreaksLater(hg.Ridge):
    def outer_loss(self, params, hparams, batch):
        loss = super().outer_loss(params, hparams, batch)
        return loss if hparams["l2"] > 0.9999 else loss * float("nan")


def test_an_error_leaves_everything_up_to_it(tmp_path):
    callbacks = [JSONLines(tmp_path), TensorBoard(tmp_path), StateSaver(tmp_path, every=100), Summary(tmp_path)]
    with pytest.raises(hg.NonFiniteError):
        fit(BreaksLater(hg.diabetes()), callbacks, steps=50)
    rows = rows_of(tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["status"] == "failed"
    assert "outer loss is nan" in summary["error"]
    assert summary["last"] == {tag: x for tag, x in rows[-1].items() if tag != "step"}
    assert torch.load(tmp_path / f"state-{rows[-1]['step']:06d}.pt", weights_only=True)["step"] == rows[-1]["step"]
    events = EventAccumulator(str(tmp_path)).Reload()
    assert len(events.Scalars("loss/dev")) == len(rows)
    assert "error/text_summary" in events.Tags()["tensors"]


def test_an_interrupted_run_says_so(tmp_path):
    callback = Summary(tmp_path)
    callback.on_error(KeyboardInterrupt(), None)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["status"], summary["error"]) == ("interrupted", "KeyboardInterrupt")


@pytest.mark.parametrize("callback", [JSONLines, StateSaver, Summary])
def test_the_files_of_another_run_are_not_overwritten(tmp_path, callback):
    fit(PROBLEMS["ridge"], [callback(tmp_path)])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(FileExistsError, match="belongs to another run; choose another folder"):
        fit(PROBLEMS["ridge"], [callback(tmp_path)])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_summary_shows_before_and_after(tmp_path):
    console = Console(record=True, width=100)
    result = fit(PROBLEMS["quadratic"], [Summary(tmp_path, console=console)])
    text = console.export_text()
    assert f"{result.first.outer_loss:.6g}" in text
    assert f"{result.last.outer_loss:.6g}" in text
    assert f"{result.last.hparams['penalty'].item():.6g}" in text
    for i, entry in enumerate(result.last.hparams["shift"].tolist()):
        (line,) = (line for line in text.splitlines() if f"shift[{i}]" in line)
        assert f"{entry:.6g}" in line
    assert f"Hessian products  {result.last.num_matvecs}" in text
    assert f"tensorboard --logdir {tmp_path}" in text


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_ends_with_the_last_step(terminal):
    console = Console(record=True, width=100, force_terminal=terminal)
    result = fit(PROBLEMS["ridge"], [ProgressBar(console)])
    text = console.export_text()
    assert "3/3" in text
    assert f"dev loss {result.last.outer_loss:.6g}" in text
