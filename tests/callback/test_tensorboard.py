"""What TensorBoard's own reader finds in the events of a run."""

import io
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tables import PROBLEMS
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import hypergrad as hg
from hypergrad.callback.picture import picture
from hypergrad.callback.tensorboard import TensorBoard

SGD = partial(torch.optim.SGD, lr=1e-3)
IMPLICIT = hg.Implicit(solver=hg.LBFGS(), inner_tol=1e-9)
PAGE = Path(__file__).parent.parent.parent / "docs" / "tensorboard.md"
KINDS = {"scalar": "scalars", "histogram": "histograms", "image": "images", "text": "tensors"}


def events(folder):
    return EventAccumulator(str(folder), size_guidance={"images": 0}).Reload()


def pixels(folder, tag):
    """The pictures under a tag, by step, shape (h, w, c)."""
    return {
        event.step: np.asarray(Image.open(io.BytesIO(event.encoded_image_string)))
        for event in events(folder).Images(tag)
    }


def penalised_pixels():
    """A classifier of images of 5 × 6 pixels with a penalty for each pixel and class."""
    generator = torch.Generator().manual_seed(0)
    parts = [(torch.randn(20, 30, generator=generator), torch.arange(20) % 3) for _ in range(3)]
    torch.manual_seed(0)
    return hg.Supervised(
        model=torch.nn.Linear(30, 3),
        loss=torch.nn.functional.cross_entropy,
        train=parts[0],
        dev=parts[1],
        test=parts[2],
        hyperparameters={"l2": hg.L2(init=0.1, per="weight", on="weight"), "all": hg.L2(init=0.1)},
    )


class Picture(hg.Quadratic):
    """The shift as an image of 4 × 5 pixels, of which it is the first three."""

    def hyperparameters(self):
        value = torch.arange(20.0).reshape(4, 5) / 10
        return {"penalty": super().hyperparameters()["penalty"], "shift": hg.Hyperparameter(value)}

    def inner_loss(self, params, hparams, batch):
        return super().inner_loss(params, hparams | {"shift": hparams["shift"].reshape(-1)[:3]}, batch)

    def outer_loss(self, params, hparams, batch):
        return super().outer_loss(params, hparams | {"shift": hparams["shift"].reshape(-1)[:3]}, batch)


class Breaks(hg.Ridge):
    def outer_loss(self, params, hparams, batch):
        return super().outer_loss(params, hparams, batch) * (1 if hparams["l2"] == 1 else float("nan"))


RUNS = {
    "one": (lambda: PROBLEMS["ridge"], IMPLICIT, {"landscape": 3}),
    "vector": (lambda: PROBLEMS["quadratic"], IMPLICIT, {}),
    "images": (penalised_pixels, IMPLICIT, {"images": {"l2": [5, 6]}}),
    "truncated": (lambda: PROBLEMS["ridge"], hg.Unrolled(inner_steps=40, horizon=20), {}),
    "sparse": (
        lambda: hg.Lasso(hg.diabetes(seed=1), l1=0.1),
        hg.Implicit(solver=hg.CoordinateDescent(), inner_tol=1e-8),
        {},
    ),
    "cut short": (lambda: Breaks(hg.diabetes(seed=1), l2=1.0), IMPLICIT, {}),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    torch.set_default_dtype(torch.float64)
    folder = tmp_path_factory.mktemp("runs")
    for name, (make, estimator, settings) in RUNS.items():
        board = TensorBoard(folder / name, **settings)
        try:
            hg.fit(make(), estimator, SGD, 2, progress=False, callbacks=[board])
        except hg.NonFiniteError:
            assert name == "cut short"
    return folder


def test_the_reader_finds_the_documented_tags_and_no_others(runs):
    documented = set(re.findall(r"^\| `(\S+)` \| (\w+) \|", PAGE.read_text(), flags=re.MULTILINE))
    assert len(documented) > 20
    patterns = {
        (tag, kind): re.compile(tag.replace("NAME", "[a-z0-9_]+") + "(/text_summary)?") for tag, kind in documented
    }
    found = set()
    for name in RUNS:
        tags = events(runs / name).Tags()
        for kind, key in KINDS.items():
            for tag in tags[key]:
                if tag.startswith("_hparams_"):
                    continue
                matches = {entry for entry, pattern in patterns.items() if entry[1] == kind and pattern.fullmatch(tag)}
                assert matches, f"{tag}, a {kind} of the run {name!r}, is not documented"
                found |= matches
    assert found == documented


def test_a_landscape_is_drawn_at_the_end(runs):
    ((step, image),) = pixels(runs / "one", "landscape").items()
    assert step == 2
    assert image.shape[2] == 3
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 10


def test_what_cannot_be_drawn_is_refused_before_the_first_step(tmp_path):
    def start(problem, **settings):
        hg.fit(problem, IMPLICIT, SGD, 1, progress=False, callbacks=[TensorBoard(tmp_path, **settings)])

    with pytest.raises(ValueError, match="over one or two values .* but penalty, shift hold 4"):
        start(PROBLEMS["quadratic"], landscape=5)
    with pytest.raises(ValueError, match=r"names 'l3', which is not a hyperparameter; there are l2"):
        start(PROBLEMS["ridge"], images={"l3": [2, 2]})
    with pytest.raises(ValueError, match=r"the shape is \(2, 2\) and there are 5 values"):
        start(PROBLEMS["ridge-per-feature"], images={"l2": [2, 2]})
    with pytest.raises(ValueError, match="landscape must be at least 2 values along each axis, but it is 1"):
        start(PROBLEMS["ridge"], landscape=1)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]  # stays, as whoever waits for it has it open


def test_images_are_the_values_of_each_step(runs):
    images = pixels(runs / "images", "image/l2")
    assert list(images) == [0, 1, 2]
    assert images[2].shape[:2] == (5, 3 * 6)  # one beside the other


def test_a_picture_goes_from_black_to_white():
    value = torch.arange(20.0).reshape(4, 5)
    image = picture(value)
    assert image is not None
    assert image.shape == (1, 1, 4, 5)
    torch.testing.assert_close(image[0, 0].double(), value / 19)
    powers = picture(10**value, logarithmic=True)
    assert powers is not None
    torch.testing.assert_close(powers, image)
    assert picture(torch.ones(2, 3, 4, 4)) is not None
    assert picture(torch.ones(4, 4), [2, 2, 4]) is None  # two channels
    for shape in [(), (7,), (3, 5), (2, 8, 8), (1, 1, 1, 8, 8)]:
        assert picture(torch.ones(shape)) is None


def test_a_hyperparameter_of_the_shape_of_an_image_is_one(tmp_path):
    result = hg.fit(Picture(size=6), IMPLICIT, SGD, 1, progress=False, callbacks=[TensorBoard(tmp_path)])
    images = pixels(tmp_path, "image/shift")
    shift = result.last.hparams["shift"]
    grey = 255 * (shift - shift.min()) / (shift.max() - shift.min())
    assert np.abs(images[1][..., 0] - grey.numpy()).max() <= 1


def test_the_learned_images_of_distillation_are_shown(tmp_path):
    problem = hg.Distillation(hg.digits())
    estimator = hg.Unrolled(solver=hg.Momentum(lr=0.1), inner_steps=3)
    board = TensorBoard(tmp_path)
    result = hg.fit(problem, estimator, SGD, 1, progress=False, warm_start=False, callbacks=[board])
    images = pixels(tmp_path, "image/images")
    assert list(images) == [0, 1]
    learned = result.last.hparams["images"]
    grey = 255 * (learned - learned.min()) / (learned.max() - learned.min())
    first_row = grey[:8].reshape(8, 8, 8).transpose(0, 1).reshape(8, 64)  # eight images beside one another, two below
    assert images[1].shape[:2] == (16, 64)
    assert np.abs(images[1][:8, :, 0] - first_row.numpy()).max() <= 1


def test_a_learned_image_has_the_shape_that_is_said_or_a_square():
    part = hg.Split(torch.rand(6, 20), torch.arange(6) % 2)
    data = hg.Splits(part, part, part)
    assert hg.Distillation(data).pictures() == {}
    assert hg.Distillation(data, shape=(4, 5)).pictures() == {"images": (4, 5)}
    with pytest.raises(ValueError, match=r"must have 20 values, as each input has, but \(4, 4\) has 16"):
        hg.Distillation(data, shape=(4, 4))
