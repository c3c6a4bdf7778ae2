"""The numbers of a run as TensorBoard events."""

import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hypergrad.callback.atomic import writing
from hypergrad.callback.base import Callback, Record, Result, Run
from hypergrad.callback.landscape import landscape, require_drawable
from hypergrad.callback.picture import picture
from hypergrad.core.errors import described
from hypergrad.core.hyperparameter import Hyperparameter
from hypergrad.core.torch_internals.objects import add_summary

_EVENTS = re.compile(r"(events\.out\.tfevents\.)(\d+)(\..*)")


class TensorBoard(Callback):
    """Writes TensorBoard events: every scalar of `Record.scalars`, histograms of vectors, the config, one HParams row.

    A hyperparameter with the shape of an image, or with an entry in `images`, is also shown as an image; for the tags
    see docs/tensorboard.md. The HParams row is in the run's own folder (`SummaryWriter.add_hparams` would make a
    folder below it), so `tensorboard --logdir outputs` shows one row per run, named after its folder.

    Args:
        folder: the folder of the run; created when missing.
        images: by the name of a hyperparameter, the shape (h, w) or (c, h, w) of the images that it holds one after
            another, in addition to the problem's `pictures`.
        landscape: the number of grid values, ≥ 2, along each of one or two hyperparameters, for a picture of the dev
            loss with the trajectory. It requires a training for each grid point after the last step.

    Raises:
        ValueError: if `landscape` is below 2.
    """

    def __init__(
        self,
        folder: str | Path,
        images: Mapping[str, Sequence[int]] | None = None,
        landscape: int | None = None,
    ) -> None:
        # Imported here because it takes as long as all of hypergrad.
        from torch.utils.tensorboard.writer import SummaryWriter

        if landscape is not None and landscape < 2:
            raise ValueError(f"TensorBoard.landscape must be at least 2 values along each axis, but it is {landscape}.")
        self.folder, self.images, self.points = Path(folder), dict(images or {}), landscape
        self._make_writer = lambda purge_step: SummaryWriter(str(self.folder), purge_step=purge_step)

    def writes_to(self) -> Sequence[Path]:
        return (self.folder,)

    def on_start(self, run: Run) -> None:
        self._run, self._spaces = run, run.problem.hyperparameters()
        self._shapes = run.problem.pictures() | self.images
        self._require(run)
        if run.is_first:
            with writing(self._events):
                self._begin(run)

    def on_step(self, record: Record) -> None:
        if not self._run.is_first:
            return
        with writing(self._events):
            self._add(record)
            self._writer.flush()

    def on_end(self, result: Result) -> None:
        from torch.utils.tensorboard.summary import hparams

        drawn = None if self.points is None else landscape(self._run, result, self.points)  # on all ranks
        if not self._run.is_first:
            return
        losses = {tag: x for tag, x in result.last.scalars().items() if tag.startswith(("loss/", "run/"))}
        with writing(self._events):
            if drawn is not None:
                self._writer.add_image("landscape", drawn.image(), result.last.step, dataformats="HWC")
            for summary in hparams(_flat(self._run.config), losses):
                add_summary(self._writer, summary)
            self._writer.close()

    def on_error(self, error: BaseException, last: Record | None) -> None:
        if not self._run.is_first:
            return
        with writing(self._events):
            self._writer.add_text("error", described(error))
            self._writer.close()

    @property
    def _events(self) -> Path:
        """What the files of events are called in errors."""
        return self.folder / "events.out.tfevents.*"

    def _begin(self, run: Run) -> None:
        """Open a file, and write the config to the first one of a run."""
        import yaml

        if run.resumed_at is not None:
            # Events after the state from which the run resumes are no longer shown.
            _put_before_now(self.folder)
            self._writer = self._make_writer(run.resumed_at + 1)
            return
        self._writer = self._make_writer(None)
        text = yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True)
        self._writer.add_text("config", f"```yaml\n{text}```")

    def _add(self, record: Record) -> None:
        """Add the numbers, histograms and images of a record."""
        for tag, value in record.scalars().items():
            self._writer.add_scalar(tag, value, record.step)
        for name, value in record.hparams.items():
            if value.ndim > 0:
                self._writer.add_histogram(f"hparam/{name}", value, record.step)
                if name in record.grad:
                    self._writer.add_histogram(f"hypergradient/{name}", record.grad[name], record.step)
            image = picture(value, self._shapes.get(name), logarithmic=_is_positive(self._spaces[name]))
            if image is not None:
                self._writer.add_images(f"image/{name}", image, record.step)

    def _require(self, run: Run) -> None:
        """Require that the images and the landscape can be drawn.

        Raises:
            ValueError: if an image's name is not that of a hyperparameter, or its shape does not fit.
        """
        start = run.problem.init_hparams()
        for name, shape in self._shapes.items():
            if name not in start:
                raise ValueError(
                    f"TensorBoard.images, or the problem's `pictures`, names {name!r}, which is not a hyperparameter; "
                    f"there are {', '.join(start)}."
                )
            picture(start[name], shape)
        if self.points is not None:
            require_drawable(run)


def _put_before_now(folder: Path) -> None:
    """Rename files of events whose time is not before this second, so that their order is that of the run.

    TensorBoard reads them in the order of their names, which begin with the second of their start. A run may be
    resumed within a second, or with a clock that was set back.
    """
    found = [(path, match) for path in sorted(folder.iterdir()) if (match := _EVENTS.fullmatch(path.name))]
    now, count = int(time.time()), len(found)
    if not found or int(found[-1][1][2]) < now:
        return
    for i, (path, match) in enumerate(found):
        path.rename(path.with_name(f"{match[1]}{now - count + i:010d}{match[3]}"))


def _is_positive(space: Hyperparameter) -> bool:
    """Whether a hyperparameter is positive and otherwise free, so that its logarithm moves freely."""
    return getattr(space.constraint, "lower_bound", None) == 0 and not hasattr(space.constraint, "upper_bound")


def _flat(config: dict[str, Any], prefix: str = "") -> dict[str, bool | str | float | int]:
    """Nested settings as one level with dotted names, for the HParams table; lists become text.

    An object that Hydra builds is shown by the name of its class: `estimator._target_:
    hypergrad.Implicit` is `estimator: Implicit`.
    """
    flat: dict[str, bool | str | float | int] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if key == "_target_":
            flat[prefix.removesuffix(".")] = value.rpartition(".")[2]
        elif key == "_partial_":
            continue
        elif isinstance(value, dict):
            flat |= _flat(value, f"{name}.")
        else:
            flat[name] = value if isinstance(value, bool | str | float | int) else str(value)
    return flat
