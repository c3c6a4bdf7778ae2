"""Damaged files of a run: it goes on to the same bits, or says which file is damaged and what to do."""

import pickle
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from folder_runs import evidence, require_same, tuned

import hypergrad as hg
from hypergrad.callback import state_file

pytestmark = pytest.mark.filterwarnings(
    "ignore:This DataLoader", "ignore:.*was written again", "ignore:.*written again"
)

SEED, NAME, STEPS = 18, "batches and dropout", 4
LAST = "state-000003.pt"


@pytest.fixture(scope="module")
def ended(tmp_path_factory) -> Path:
    """A run of three steps."""
    folder = tmp_path_factory.mktemp("damage")
    for path in ("warm", "ended"):
        tuned(NAME, folder / path)
    return folder / "ended"


@pytest.fixture(scope="module")
def longer(ended) -> dict[str, Any]:
    """What the run has after one more step."""
    folder = shutil.copytree(ended, ended.with_name("longer"))
    tuned(NAME, folder, STEPS)
    return evidence(folder)


def verdict(folder: Path, longer: dict[str, Any], *, of_events: bool = False) -> str:
    """How a run goes on: to the same bits, or not at all, with a message; anything else fails.

    Events of TensorBoard that were lost are not written again, but those that are there must be right.
    """
    before, said = {path.name: path.read_bytes() for path in folder.glob("state-*")}, ""
    try:
        tuned(NAME, folder, STEPS)
    except hg.CheckpointError as error:
        said = str(error)
    if not said:
        found = evidence(folder)
        if of_events:
            events, shown = found.pop("events"), longer["events"]
            assert all(set(events[tag]) <= set(shown[tag]) and shown[tag][-1] in events[tag] for tag in events)
        require_same(found, {key: longer[key] for key in found}, str(folder))
        return "the same bits"
    assert str(folder) in said
    assert "can be read" in said
    assert len(said) < 700
    assert {path.name: path.read_bytes() for path in folder.glob("state-*")} == before, "a state was lost"
    return "refused"


def flips(path: Path, count: int, seed: int = SEED) -> Iterator[tuple[int, bytes]]:
    """The content of a file with one bit changed, at random places."""
    content, places = path.read_bytes(), random.Random(f"{seed} {path.name}")
    for _ in range(count):
        place = places.randrange(8 * len(content))
        changed = bytearray(content)
        changed[place // 8] ^= 1 << (place % 8)
        yield place, bytes(changed)


def state_of(folder: Path) -> str | dict[str, Any]:
    try:
        return state_file.read(folder / LAST)
    except hg.CheckpointError as error:
        return str(error)


def flipped(ended: Path, tmp_path: Path, name: str, count: int) -> dict[str, int]:
    """Flip bits in a file that a state consists of: each is found, or changes nothing."""
    folder = shutil.copytree(ended, tmp_path / "flipped")
    whole, counts = state_file.read(folder / LAST), {"refused": 0, "the same bits": 0}
    for place, content in flips(folder / name, count):
        (folder / name).write_bytes(content)
        found = state_of(folder)
        if isinstance(found, dict):
            require_same(found, whole, f"bit {place} of {name}")
        else:
            assert str(folder) in found
            assert "state-000002.pt" in found or "No other state" in found
        counts["the same bits" if isinstance(found, dict) else "refused"] += 1
    return counts


@pytest.mark.parametrize(("name", "least"), [(LAST, 40), ("history.jsonl", 60)])
def test_a_flipped_bit_is_found_or_changes_nothing(ended, tmp_path, name, least):
    counts = flipped(ended, tmp_path, name, 60)
    assert counts["refused"] >= least


@pytest.mark.slow
def test_many_flipped_bits_are_found_or_change_nothing(ended, tmp_path):
    for name, count in {LAST: 2000, "history.jsonl": 500}.items():
        print(name, flipped(ended, tmp_path / name, name, count), f"of {count}, seed {SEED}")


def test_a_state_has_checksums_where_the_process_wants_none(tmp_path):
    options = torch.serialization
    before = options.get_crc32_options()
    options.set_crc32_options(False)
    try:
        tuned(NAME, tmp_path)
        assert not options.get_crc32_options()
    finally:
        options.set_crc32_options(before)
    assert state_file.read(tmp_path)["step"] == 3


def _truncated(part: float) -> Callable[[bytes], bytes]:
    return lambda content: content[: int(part * len(content))]


METRICS: dict[str, Callable[[bytes], bytes]] = {
    "half a line": lambda content: content[:-40],
    "no end of line": lambda content: content[:-1],
    "garbage at the end": lambda content: content + b"\xff\xfegarbage}\n",
    "NUL bytes at the end": lambda content: content + bytes(512),
    "NUL bytes in its place": lambda content: content[:-300] + bytes(300),
    "a line of NUL bytes in the middle": lambda content: content.replace(content.split(b"\n")[1], bytes(100)),
    "other numbers": lambda content: content.replace(b"0.", b"1."),
    "a JSON of another kind": lambda content: b'[1]\n"a"\n{"step": [1]}\n' + content,
    "no lines": lambda content: b"",
    "half of it": _truncated(0.5),
}


@pytest.mark.parametrize("damage", METRICS)
def test_damaged_metrics_are_written_again_from_the_state(ended, longer, tmp_path, damage):
    folder = shutil.copytree(ended, tmp_path / "run")
    path = folder / "metrics.jsonl"
    path.write_bytes(METRICS[damage](path.read_bytes()))
    assert verdict(folder, longer) == "the same bits"


def test_repaired_metrics_are_named(ended, tmp_path):
    folder = shutil.copytree(ended, tmp_path / "run")
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text("".join(lines[:1] + lines[2:]))
    with pytest.warns(UserWarning, match=r"metrics.jsonl lacked 1 of 4 records, .* written again from the state"):
        tuned(NAME, folder)
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 4


def test_metrics_that_are_whole_stay_as_they_are(ended, tmp_path, recwarn):
    folder = shutil.copytree(ended, tmp_path / "run")
    before = (folder / "metrics.jsonl").read_bytes()
    tuned(NAME, folder)
    assert (folder / "metrics.jsonl").read_bytes() == before
    assert not [one for one in recwarn if "written again" in str(one.message)]


def _foreign(path: Path, name: str) -> None:
    """Another program's file in the place of a state."""
    if name == "pickle":
        path.write_bytes(pickle.dumps({"step": 3}))
    elif name == "text":
        path.write_text("step: 3\n")
    elif name == "tensor":
        torch.save(torch.ones(3), path)
    elif name == "module":
        torch.save(torch.nn.Linear(2, 2), path)
    elif name == "old torch file":
        torch.save({"step": 3}, path, _use_new_zipfile_serialization=False)
    else:
        tuned("cosine", path.parent / "other")
        shutil.copy(path.parent / "other" / LAST, path)
        shutil.rmtree(path.parent / "other")


@pytest.mark.parametrize("name", ["pickle", "text", "tensor", "module", "old torch file", "another experiment"])
def test_a_foreign_file_is_no_state(ended, longer, tmp_path, name):
    folder = shutil.copytree(ended, tmp_path / "run")
    _foreign(folder / LAST, name)
    assert verdict(folder, longer) == "refused"


@pytest.mark.parametrize("part", [0.0, 0.5, 0.999])
def test_a_truncated_state_is_refused(ended, longer, tmp_path, part):
    folder = shutil.copytree(ended, tmp_path / "run")
    (folder / LAST).write_bytes(_truncated(part)((folder / LAST).read_bytes()))
    assert verdict(folder, longer) == "refused"


@pytest.mark.slow
def test_every_file_truncated_at_twenty_lengths(ended, longer, tmp_path):
    counts: dict[tuple[str, str], int] = {}
    for path in sorted(ended.iterdir()):
        for part in range(20):
            folder = shutil.copytree(ended, tmp_path / str(part))
            (folder / path.name).write_bytes(_truncated(part / 20)(path.read_bytes()))
            key = (path.name, verdict(folder, longer, of_events="tfevents" in path.name))
            counts[key] = counts.get(key, 0) + 1
            shutil.rmtree(folder)
    print(counts)
    assert {name for name, how in counts if how == "refused"} == {LAST, "history.jsonl"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["metrics.jsonl", "summary.json", "labels.json", "hparams.yaml", "model.pt"])
def test_a_flipped_bit_in_any_other_file_does_not_stop_a_run(ended, longer, tmp_path, name):
    for number, (_, content) in enumerate(flips(ended / name, 20)):
        folder = shutil.copytree(ended, tmp_path / str(number))
        (folder / name).write_bytes(content)
        assert verdict(folder, longer) == "the same bits"
