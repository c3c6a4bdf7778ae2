"""The settings that no object checks, and values that lead nowhere: the message names the key."""

import pytest
from commands import call

from hypergrad import run


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("seed=[1,2]", "seed must be an integer, but it is [1, 2] of type list"),
        ("seed=9223372036854775808", "seed must be an integer of at most 63 bits, but it is 9223372036854775808"),
        ("any_world=abc", "any_world must be true or false, but it is 'abc' of type str"),
        ("rank_timeout=nan", "rank_timeout must be a finite number of seconds above 0, but it is nan"),
        ("~seed", "The config has no seed, which every run needs; leave ~seed out"),
        ("retrain=${nowhere}", "This is the value of retrain; give it another one"),
        ("precision=${nowhere}", "This is the value of precision; give it another one"),
        ("estimator.damping='${oc.env:NOPE}'", "This is the value of estimator.damping; give it another one"),
    ],
)
def test_the_key_is_named_without_a_traceback(override, said, tmp_path):
    done = call(run.main, override, "outer_steps=0", cwd=tmp_path)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("metrics.jsonl"))
