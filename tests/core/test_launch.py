"""What a process that torchrun started knows, without starting any."""

import json

import pytest
import torch
from torch.distributed import HashStore  # pyright: ignore[reportPrivateImportUsage]

from hypergrad.core import launch as module
from hypergrad.core.launch import Launch, _leave_error_file, is_first_to_fail, launched, processes
from hypergrad.core.notice import listen, notify
from hypergrad.core.ranks import ALONE

ENVIRONMENT = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def launch(root=None, *, rank=0, world=2, attempt=0) -> Launch:
    return Launch(rank, world, local_rank=rank, attempt=attempt, root=root or HashStore(), outlives=False)


@pytest.fixture
def _alone(monkeypatch):
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    launched.cache_clear()
    yield
    launched.cache_clear()


def test_each_process_gets_its_own_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [launch(rank=rank).device("cuda") for rank in (0, 1)] == ["cuda:0", "cuda:1"]
    assert launch(rank=3).device("cpu") == "cpu"
    assert launch(world=1).device("cuda:1") == "cuda:1"
    with pytest.raises(ValueError, match=r"at least 3 processes on this machine, and torch finds 2 GPUs"):
        launch(rank=2, world=3).device("cuda")
    with pytest.raises(ValueError, match=r"device=cuda:1 with 2 processes: use cpu, or cuda, which gives each"):
        launch().device("cuda:1")


def test_the_first_value_under_a_key_is_that_of_all_processes_of_an_attempt():
    root = HashStore()
    first, second, restarted = launch(root), launch(root, rank=1), launch(root, rank=1, attempt=1)
    assert first.same("folder", "a", in_all_attempts=False) == "a"
    assert second.same("folder", "b", in_all_attempts=False) == "a"
    assert restarted.same("folder", "c", in_all_attempts=False) == "c"
    assert first.same("folder", "d", in_all_attempts=True) == "d"
    assert restarted.same("folder", "e", in_all_attempts=True) == "d"


@pytest.mark.usefixtures("_alone")
def test_a_process_that_torchrun_did_not_start_is_alone():
    assert launched() is None
    assert is_first_to_fail(ValueError("no"))
    with processes() as peers:
        assert peers is ALONE


def test_torchrun_is_told_of_an_error_in_the_file_that_it_names(monkeypatch, tmp_path):
    path = tmp_path / "error.json"
    monkeypatch.delenv("TORCHELASTIC_ERROR_FILE", raising=False)
    _leave_error_file("unheard")
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(path))
    _leave_error_file("ValueError: no such file")
    told = json.loads(path.read_text())["message"]
    assert told["message"] == told["extraInfo"]["py_callstack"] == "ValueError: no such file"


def test_of_two_that_fail_the_first_says_what_happened(monkeypatch):
    root = HashStore()
    for rank, is_first in ((1, True), (0, False), (1, True)):
        monkeypatch.setattr(module, "launched", lambda rank=rank: launch(root, rank=rank))
        assert is_first_to_fail(ValueError(f"of {rank}")) == is_first


def test_a_listener_hears_until_it_is_stopped_once_or_twice():
    heard = []
    stop = listen(heard.append)
    notify("one")
    stop()
    stop()
    notify("two")
    assert heard == ["one"]
