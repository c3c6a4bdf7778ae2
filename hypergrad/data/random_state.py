"""The random states that reading a data set may use: those of torch, of Python and of numpy, on the CPU."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


@contextmanager
def kept_random_state() -> Iterator[None]:
    """Put the random states back at the end."""
    state = copy_of_random_state()
    try:
        yield
    finally:
        restore_random_state(state)


def copy_of_random_state() -> Any:
    """The random states, for `restore_random_state`."""
    return torch.get_rng_state(), random.getstate(), np.random.get_state()


def restore_random_state(state: Any) -> None:
    """Go on with random states that `copy_of_random_state` returned."""
    torch.set_rng_state(state[0])
    random.setstate(state[1])
    np.random.set_state(state[2])


def seed_random_state(seed: int) -> None:
    """Seed the random states."""
    torch.default_generator.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


def random_state() -> Any:
    """The random states; a draw changes the value."""
    numbers: Any = np.random.get_state()
    return torch.get_rng_state().numpy().tobytes(), random.getstate(), numbers[1].tobytes(), numbers[2:]
