"""python -m scripts.figures [NAME…]: draws the pictures of docs/img again, all of them or those named."""

import sys
from importlib import import_module

import torch

from scripts.figures.style import save

FIGURES = ("bilevel_loop", "errors", "tape_cost", "tapes")

if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    for name in sys.argv[1:] or FIGURES:
        path = save(import_module(f"scripts.figures.{name}").draw(), name)
        sys.stdout.write(f"{path}\n")
