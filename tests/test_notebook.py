"""`hg.fit` as a notebook uses it: what it shows, and what the result holds."""

import sys
from functools import partial
from xml.etree import ElementTree

import pytest
import torch
from rich.console import Console
from tables import PROBLEMS

import hypergrad as hg
from hypergrad.callback.progress import ProgressBar

ESTIMATOR = hg.Implicit(solver=hg.LBFGS())
ADAM = partial(torch.optim.Adam, lr=0.5)


def test_the_result_is_a_table_tensors_and_one_line():
    pandas = pytest.importorskip("pandas")
    result = hg.fit(PROBLEMS["ridge-per-feature"], ESTIMATOR, ADAM, steps=6, progress=False)
    frame = pandas.DataFrame(result.history)
    assert len(frame) == 7
    assert frame["step"].tolist() == list(range(7))
    for tag, series in result.tensors().items():
        assert series.shape == (7,)
        assert series.tolist() == frame[tag].tolist() or series.isnan().any()
    assert result.trajectory["l2"].shape == (7, 5)
    assert torch.equal(result.trajectory["l2"][-1], result.last.hparams["l2"])
    text = repr(result)
    assert text.startswith(
        f"Result(6 outer steps, dev loss {result.first.outer_loss:.6g} → {result.last.outer_loss:.6g}"
    )
    assert len(text) < 120


def test_a_notebook_shows_lines_and_asks_for_no_widgets(monkeypatch):
    console = Console(record=True, width=100, force_jupyter=True)
    shown = []
    monkeypatch.setattr("rich.jupyter.display", lambda segments, text: shown.append(text))
    hg.fit(PROBLEMS["ridge"], ESTIMATOR, ADAM, steps=3, progress=False, callbacks=[ProgressBar(console)])
    lines = [text.strip() for text in shown if text.strip()]
    assert [line.split("  ")[0] for line in lines] == [f"outer step {step}/3" for step in range(4)]
    assert all("‖dF/dλ‖" in line for line in lines)


def test_a_notebook_shows_the_table_of_the_terminal_and_curves():
    pytest.importorskip("matplotlib")
    result = hg.fit(PROBLEMS["ridge-per-feature"], ESTIMATOR, ADAM, steps=3, progress=False)
    shown = ElementTree.fromstring(result._repr_html_())  # well-formed
    cells = ["".join(cell.itertext()) for row in shown.iter("tr") for cell in row]
    assert cells[:3] == ["", "before", "after"]
    assert cells[cells.index("dev loss") + 2] == f"{result.last.outer_loss:.6g}"
    assert cells[cells.index("l2[4]") + 2] == f"{result.last.hparams['l2'][4].item():.6g}"
    drawings = list(shown.iter("{http://www.w3.org/2000/svg}svg"))
    assert [drawing.get("aria-label") for drawing in drawings] == ["loss against steps", "trajectories"]
    assert {"dev loss", "outer step", "l2"} <= {text.text for text in shown.iter("{http://www.w3.org/2000/svg}text")}
    assert len(result._repr_html_()) < 200_000


def test_names_of_hyperparameters_are_no_markup(monkeypatch):
    problem = hg.Supervised(
        model=torch.nn.Linear(2, 1),
        loss=torch.nn.functional.mse_loss,
        train=(torch.eye(2), torch.ones(2)),
        dev=(torch.ones(1, 2), torch.ones(1)),
        hyperparameters={"<b>l2": hg.L2()},
    )
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr("hypergrad.callback.notebook.find_spec", lambda name: None)
    result = hg.fit(problem, ESTIMATOR, ADAM, steps=0, progress=False)
    html = result._repr_html_()
    assert "&lt;b&gt;l2" in html
    assert "<b>" not in html
    assert "<svg" not in html
