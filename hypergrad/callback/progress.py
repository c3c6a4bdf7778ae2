"""A progress bar."""

from typing import TYPE_CHECKING

from hypergrad.callback.base import Callback, Record, Result, Run
from hypergrad.core.notice import listen

if TYPE_CHECKING:
    from rich.console import Console

_LINES = 10
"""Plain lines in a run, apart from the last. A judgement: enough to see progress in a log without filling it."""


class ProgressBar(Callback):
    """A bar with the dev loss, the hypergradient's norm and the time left; plain lines if there is no terminal.

    A line says when steps are compiled, which takes a while.

    Args:
        console: where to draw; standard output when None.
    """

    def __init__(self, console: "Console | None" = None) -> None:
        from rich.console import Console

        self.console = console or Console()

    def on_start(self, run: Run) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        if not run.is_first:
            self.console = Console(quiet=True, force_terminal=False)
        self._seen = -1 if run.resumed_at is None else run.resumed_at
        self._total, self._unit = run.outer_steps, "trial" if "budget" in run.config else "outer step"
        self._known = "dev loss unknown"
        self._bar = Progress(
            TextColumn(self._unit),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.fields[losses]}"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self._task = self._bar.add_task("", total=run.outer_steps, losses="")
        self._bar.start()
        self._stop_listening = listen(self._say)

    def on_step(self, record: Record) -> None:
        numbers = record.scalars()
        if record.dev_loss is not None:
            self._known = f"dev loss {record.dev_loss:.6g}"
            if record.problem.samples_outer:
                self._known += f" (all of dev, step {record.step})"
        losses = self._known
        if "hypergradient/norm" in numbers:
            losses += f"  ‖dF/dλ‖ {numbers['hypergradient/norm']:.2e}"
        self._bar.update(self._task, completed=record.step, losses=losses)
        before, self._seen, stride = self._seen, record.step, max(1, self._total // _LINES)
        is_due = record.step // stride > before // stride or record.step == self._total
        if not self.console.is_terminal and is_due:
            # A search without a number of trials, and a run resumed beyond its steps, have no total.
            of = f"/{self._total}" if self._total or (self._unit == "outer step" and record.step == 0) else ""
            self.console.print(f"{self._unit} {record.step}{of}  {losses}", highlight=False)

    def on_end(self, result: Result) -> None:
        self._close()

    def on_error(self, error: BaseException, last: Record | None) -> None:
        self._close()

    def _say(self, message: str) -> None:
        self.console.print(message, highlight=False, markup=False)

    def _close(self) -> None:
        self._stop_listening()
        self._bar.stop()
