"""A result as HTML, for notebooks."""

import io
from collections.abc import Mapping, Sequence
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hypergrad.callback.before_after import BeforeAfter
from hypergrad.table.recorded_run import FINISHED, RecordedRun
from hypergrad.table.settings import Setting


def as_html(compared: BeforeAfter, rows: Sequence[Mapping[str, Any]], labels: Mapping[str, list[str]]) -> str:
    """The table, remarks, and if matplotlib is installed the curves of the losses and the hyperparameters, as SVG.

    Args:
        compared: the table.
        rows: of each record, as in `metrics.jsonl`.
        labels: of the entries of the hyperparameters.
    """
    remarks = "".join(f"<p>{escape(sentence)}</p>" for sentence in compared.remarks)
    curves = _curves(rows, labels) if find_spec("matplotlib") else ""
    return f"<div>{_table(compared)}{remarks}{curves}</div>"


def _table(compared: BeforeAfter) -> str:
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in ("", *compared.columns))
    bodies = ("".join(map(_row, section)) for section in compared.sections)
    body = "".join(f"<tbody>{rows}</tbody>" for rows in bodies)
    return f"<table><caption>{escape(compared.title)}</caption><thead><tr>{head}</tr></thead>{body}</table>"


def _row(texts: Sequence[str]) -> str:
    name, *values = (escape(text).replace("\n", "<br/>") for text in texts)
    return f'<tr><th scope="row">{name}</th>{"".join(f"<td>{value}</td>" for value in values)}</tr>'


def _curves(rows: Sequence[Mapping[str, Any]], labels: Mapping[str, list[str]]) -> str:
    from matplotlib import rc_context

    from hypergrad.plot.figures import FIGURES
    from hypergrad.plot.panel import publication

    run = RecordedRun(Path(), [dict(row) for row in rows], {"status": FINISHED}, labels=dict(labels))
    drawings = []
    # Text as text is a tenth of the size; the salt gives the same identifiers each time.
    with publication(), rc_context({"svg.fonttype": "none", "svg.hashsalt": "hypergrad"}):
        for name in ("loss_against_steps", "trajectories"):
            file = io.StringIO()
            FIGURES[name]([Setting("", [run], {})]).savefig(file, format="svg", metadata={"Date": None})
            _, _, drawing = file.getvalue().partition("<svg")
            drawings.append(f'<svg role="img" aria-label="{escape(name.replace("_", " "))}"{drawing}')
    return "".join(drawings)
