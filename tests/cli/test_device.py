"""The device that the command line names."""

import pytest
import torch

from hypergrad.cli.device import require_device


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gpu", "device must be cpu, cuda, one GPU such as cuda:1, or mps, but it is gpu."),
        ("meta", "device=meta is not supported; use cpu"),
        ("cuda", r"device=cuda needs a GPU, but torch .* finds none; use device=cpu"),
        ("cuda:7", r"device=cuda:7 needs a GPU, but torch .* finds none"),
        ("mps", r"device=mps needs a Mac with a GPU, but torch .* finds none"),
    ],
)
def test_a_device_that_is_not_here_is_named(name, message, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError, match=message):
        require_device(name, torch.float64)


def test_a_gpu_beyond_the_last_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert require_device("cuda", torch.float64) == torch.device("cuda")
    assert require_device("cuda:0", torch.float64) == torch.device("cuda:0")
    with pytest.raises(ValueError, match="device=cuda:7 is not here: torch finds 1, cuda:0"):
        require_device("cuda:7", torch.float64)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    with pytest.raises(ValueError, match="torch finds 4, cuda:0 to cuda:3"):
        require_device("cuda:4", torch.float64)


def test_a_mac_has_no_float64(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert require_device("mps", torch.float32).type == "mps"
    with pytest.raises(ValueError, match="device=mps has no float64; use dtype=float32"):
        require_device("mps", torch.float64)
