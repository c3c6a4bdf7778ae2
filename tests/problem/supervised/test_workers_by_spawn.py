"""Worker processes that do not begin as copies of this one, as on macOS and Windows."""

import multiprocessing

import pytest
from streams import InOrder, Made, outcome, problem_on, require_same


@pytest.fixture(autouse=True)
def spawned():
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method("spawn", force=True)
    yield
    multiprocessing.set_start_method(before, force=True)


@pytest.mark.slow
def test_the_numbers_are_the_same_bits():
    wanted = outcome(problem_on(Made(1, noise=0.3), stream=False), steps=4)
    require_same(outcome(problem_on(Made(1, noise=0.3), stream=True, num_workers=1), steps=4), wanted)


class Opened(Made):
    """Holds something that no other process can have."""

    def __init__(self, file) -> None:
        super().__init__(1)
        self.file = file


@pytest.mark.parametrize("kind", [lambda data: data, InOrder], ids=["rows", "in order"])
def test_a_data_set_that_cannot_be_sent_is_named_with_what_to_do(tmp_path, kind):
    with (tmp_path / "images").open("w") as file:
        problem = problem_on(kind(Opened(file)), stream=True, num_workers=1)
        with pytest.raises(
            TypeError,
            match="data set of the train part .* started by 'spawn', but it cannot be pickled: TypeError: .*"
            "TextIOWrapper.* open files in __getitem__ .* num_workers=0",
        ):
            problem.inner_batch(0)
    assert not multiprocessing.active_children()
