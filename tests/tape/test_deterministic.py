"""Deterministic kernels on a GPU: what is set for a while, and what is said of an operation that has none."""

import os

import pytest
import torch

import hypergrad as hg
from hypergrad.tape.deterministic import deterministic

CUDA = torch.device("cuda")
VARIABLE = "CUBLAS_WORKSPACE_CONFIG"


def settings():
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,  # pyright: ignore[reportAttributeAccessIssue]
        os.environ.get(VARIABLE),
    )


def test_settings_hold_within_and_are_restored(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    before = settings()
    with deterministic(CUDA):
        assert settings() == (True, False, False, ":4096:8")
    assert settings() == before
    with pytest.raises(KeyError), deterministic(CUDA):
        raise KeyError
    assert settings() == before


def test_what_the_user_has_set_is_restored(monkeypatch):
    monkeypatch.setenv(VARIABLE, ":16:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with deterministic(CUDA):
            assert settings() == (True, False, False, ":16:8")
        assert settings() == (True, True, True, ":16:8")
    finally:
        torch.use_deterministic_algorithms(False)


def test_nothing_changes_on_a_cpu():
    with deterministic(torch.device("cpu")):
        assert not torch.are_deterministic_algorithms_enabled()


def test_an_operation_without_a_deterministic_kernel_is_named():
    with (
        pytest.raises(hg.ReversalError, match=r"the operation put_ in the inner loss .* on cuda\. Write it with other"),
        deterministic(CUDA),
    ):
        torch.zeros(3).put_(torch.tensor([0, 0]), torch.ones(2))  # torch refuses it on every device


def test_other_errors_pass_as_they_are():
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), deterministic(CUDA):
        torch.mm(torch.zeros(2, 3), torch.zeros(2, 3))
