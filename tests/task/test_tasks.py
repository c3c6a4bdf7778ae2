"""Points lie on their sine waves, and held-out tasks share no class with the others."""

import pytest
import torch

import hypergrad as hg
from hypergrad.data.tables import Split, Splits


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def numbered(num_classes=8, each=10):
    """Example j of class c is (c, j), in three parts that mix the classes."""
    c, j = torch.meshgrid(torch.arange(num_classes), torch.arange(each), indexing="ij")
    X, y = torch.stack([c.flatten(), j.flatten()], 1).double(), c.flatten()
    order = torch.randperm(len(y), generator=seeded(9))
    return Splits(*(Split(X[rows], y[rows]) for rows in order.tensor_split(3)))


def test_each_task_is_one_wave_at_all_of_its_points():
    (X, y), (X_query, y_query) = hg.Sinusoids(shots=4, queries=6).draw(50, seeded())
    assert X.shape == (50, 4, 1)
    assert y_query.shape == (50, 6)
    x, y = torch.cat([X, X_query], 1)[..., 0], torch.cat([y, y_query], 1)
    # y = a sin x + b cos x with a = A cos φ and b = −A sin φ
    basis = torch.stack([x.sin(), x.cos()], 2)
    a, b = torch.linalg.lstsq(basis, y[..., None]).solution[..., 0].T
    torch.testing.assert_close((basis @ torch.stack([a, b], 1)[..., None])[..., 0], y)
    amplitude, phase = torch.hypot(a, b), torch.atan2(-b, a)
    for low, value, high in ((0.1, amplitude, 5), (0, phase, torch.pi), (-5, x, 5)):
        assert low <= value.min() < low + (high - low) / 10
        assert high - (high - low) / 10 < value.max() <= high


@pytest.mark.parametrize("held_out", [False, True])
def test_a_task_has_k_examples_of_each_class_and_none_twice(held_out):
    family = hg.FewShot(data=numbered(), ways=3, shots=2, queries=5, held_out=4)
    (X, y), (X_query, y_query) = family.draw(20, seeded(), held_out=held_out)
    assert X.shape == (20, 6, 2)
    assert torch.equal(y, torch.tensor([0, 0, 1, 1, 2, 2]).expand(20, 6))
    assert torch.equal(y_query, torch.arange(3).repeat_interleave(5).expand(20, 15))
    chosen = set(family.classes(held_out=held_out).tolist())
    for task in range(20):
        found = {label: set(X[task, y[task] == label, 0].tolist()) for label in range(3)}
        assert all(len(classes) == 1 and classes <= chosen for classes in found.values())
        assert found == {label: set(X_query[task, y_query[task] == label, 0].tolist()) for label in range(3)}
        assert len(torch.cat([X[task], X_query[task]]).unique(dim=0)) == 21
    assert len(X[:, 0, 0].unique()) == len(chosen)  # any class can be number 0


def test_held_out_classes_are_in_no_other_task():
    family = hg.FewShot(data=numbered(), ways=2, queries=3, held_out=3, seed=5)
    others, held_out = (family.classes(held_out=flag) for flag in (False, True))
    assert sorted(torch.cat([others, held_out]).tolist()) == list(range(8))
    assert len(held_out) == 3
    elsewhere = hg.FewShot(data=numbered(), ways=2, queries=3, held_out=3, seed=6).classes(held_out=True)
    assert set(elsewhere.tolist()) != set(held_out.tolist())


@pytest.mark.parametrize("family", [hg.Sinusoids(), hg.FewShot(data=numbered(), queries=4)], ids=["waves", "classes"])
def test_a_draw_is_a_function_of_the_generator(family):
    first, again, other = (family.draw(3, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first.support.X, again.support.X)
    assert torch.equal(first.query.y, again.query.y)
    assert not torch.equal(first.support.X, other.support.X)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: hg.Sinusoids(shots=0), "Sinusoids.shots must be at least 1"),
        (lambda: hg.FewShot(data=numbered(), ways=1), "FewShot.ways must be at least 2"),
        (lambda: hg.FewShot(data=numbered(), ways=5), "FewShot.held_out must be at least 5, but it is 4"),
        (
            lambda: hg.FewShot(data=numbered(6), queries=2),
            "held_out = 7 classes.* there are 6 classes",
        ),
        (
            lambda: hg.FewShot(data=numbered(), queries=10),
            "queries = 11 .* smallest with 10 examples",
        ),
    ],
)
def test_bad_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
