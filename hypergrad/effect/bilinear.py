"""Images sampled at other positions, with derivatives of any order."""

import torch
from torch import Tensor
from torch.nn.functional import grid_sample


def sampled(images: Tensor, grid: Tensor) -> Tensor:
    """Images between pixels by bilinear interpolation, and zero outside: `grid_sample` with `align_corners=False`.

    Torch before 2.13 has no second derivative of it; there, the same is computed by operations that have all of them.

    Args:
        images: shape (n, channels, h, w).
        grid: positions x and y from −1 to 1, shape (n, h', w', 2).

    Returns:
        Shape (n, channels, h', w').
    """
    return grid_sample(images, grid, align_corners=False) if TWICE else by_corners(images, grid)


def by_corners(images: Tensor, grid: Tensor) -> Tensor:
    """`sampled` as the sum over the four pixels around each position."""
    n, channels, height, width = images.shape
    x, y = ((grid[..., 0] + 1) * width - 1) / 2, ((grid[..., 1] + 1) * height - 1) / 2
    left, top = x.detach().floor(), y.detach().floor()
    found = images.new_zeros(())
    for column, by_x in ((left, left + 1 - x), (left + 1, x - left)):
        for row, by_y in ((top, top + 1 - y), (top + 1, y - top)):
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            place = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
            index = place.long().view(n, 1, -1).expand(n, channels, -1)
            pixels = images.flatten(2).gather(2, index).view(n, channels, *grid.shape[1:3])
            found = found + pixels * (by_x * by_y * inside)[:, None]
    return found


def torch_differentiates_twice() -> bool:
    """Whether `grid_sample` has a second derivative in this version of torch."""
    grid = torch.zeros(1, 1, 1, 2, device="cpu", requires_grad=True)
    image = torch.ones(1, 1, 2, 2, device="cpu")
    (first,) = torch.autograd.grad(grid_sample(image, grid, align_corners=False).sum(), grid, create_graph=True)
    try:
        torch.autograd.grad(first.sum(), grid, allow_unused=True)
    except RuntimeError:
        return False
    return True


TWICE = torch_differentiates_twice()
"""Found once, because `sampled` may be called while a program is traced."""
