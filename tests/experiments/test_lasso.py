"""The experiment on the Lasso's penalty."""

import torch

import hypergrad as hg
from experiments.lasso.table import grid, search


def test_descent_from_the_best_of_five_points_is_as_good_as_a_grid_of_a_hundred():
    data = hg.diabetes(seed=0)
    best = grid(hg.Lasso(data), torch.logspace(0, -3, 100))
    found, fits = search("5 points, Adam", data, 1e-3, 0.1)
    assert fits == 16
    assert found.dev <= 1.00001 * best.dev
    alone, _ = search("Adam", data, 1e-3, 0.1)
    assert alone.dev > 1.005 * best.dev  # another local minimum lies on its way
