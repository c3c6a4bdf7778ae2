"""Who is the first of several processes, and what they agree on."""

from pathlib import Path

import pytest
import torch
from launched import torchrun

from hypergrad.core.ranks import ALONE, digest, peers_of


def test_a_process_alone_agrees_with_itself():
    assert peers_of() is ALONE
    assert (ALONE.rank, ALONE.world, ALONE.is_first) == (0, 1, True)
    value = object()
    assert ALONE.first(value) is value
    assert ALONE.first_numbers([1.5]) == [1.5]
    assert ALONE.most(2) == 2
    assert ALONE.gathered(value) == [value]
    ALONE.barrier(seconds=1)
    ALONE.require_same({"l2": torch.ones(1)}, "at the start")


@pytest.mark.parametrize("tensor", [torch.ones(()), torch.ones(1).expand(3), torch.eye(3).T[1:], torch.zeros(0)])
def test_a_digest_depends_on_every_bit(tensor):
    assert digest(tensor) == digest(tensor.clone())
    assert 0 <= digest(tensor) < 2**63
    for i in range(tensor.numel()):
        other = tensor.clone().contiguous()
        other.view(-1)[i] += torch.finfo(tensor.dtype).eps
        assert digest(other) != digest(tensor)


@pytest.mark.slow
def test_three_processes_agree(tmp_path):
    done = torchrun(str(Path(__file__).with_name("ranks_script.py")), world=3, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == ["right on 0", "right on 1"]
