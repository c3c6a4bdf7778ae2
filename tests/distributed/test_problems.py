"""Each kind of problem on two processes gives the hypergradients of one, or is refused by name."""

import re
from functools import partial

import pytest
import ranks
import shared_cases

run = partial(ranks.run, "shared_cases", seconds=180)
REFUSED = {
    "pairs": "DataParallel on 2 processes needs a loss that is a mean or a sum over examples, .* off by 2.4e-03",
    "centred": "Look for statistics of the batch in the model",
    "returned, ignored": "the model returns its loss itself, and 3 of 13 targets are -100",
    "returned, ignored later": "Example [0-9]+ of the train part: DataParallel on 2 processes .* of 1 targets are -100",
    "normalised, dev in batches": "because the layer '1.0' normalises by those of its batch, but dev_batch_size is 3",
    "distilled, normalised": "the layer '1', a BatchNorm1d, normalises by the statistics of its batch",
    "distilled, centred": "DataParallel on 2 processes needs a loss that is a mean or a sum",
    "posteriors, normalised": "the layer '1', a BatchNorm1d, normalises by the statistics of its batch",
    "synchronised": "the layer '1' is an nn.SyncBatchNorm, whose second derivatives are wrong",
    "quadratic": "Quadratic does not define `inner_share`",
    "root": "MeanField has one of its own",
    "in order": "The dev part is an IterableDataset, which has no number of examples",
    "spread": "those of this DataParallel are sums over processes already",
    "folds of spread": "those of this KFold are sums over processes already",
    "precision outside": "sums are in that of the parameters. Give the precision to hg.Trainer",
    "penalised": "Lasso has an L1 penalty; use the problem without it",
}


@pytest.mark.parametrize("case", shared_cases.QUICK)
def test_parity(case):
    first, second = run().of(case)
    assert max(*first, *second) < 1e-10


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize("case", shared_cases.EXHAUSTIVE)
def test_parity_of_more_estimators(case, world):
    results = ranks.run("shared_cases", function="exhaustive", world=world, seconds=600)
    assert max(max(found) for found in results.of(case)) < 1e-10


@pytest.mark.parametrize(("case", "bound"), [("float32", 1e-6), ("bf16-mixed", 3e-2), ("bf16-true", 3e-2)])
def test_sums_are_in_the_format_of_the_parameters(case, bound):
    for found in run().of(case):
        assert found["outside"] == "DataParallel"
        assert found["dtype"] == "torch.float32"
        assert found["judged by"] == "Supervised"
        assert found["epsilon"][0] == found["epsilon"][1] > 0
        assert 0 < found["error"] < bound


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case):
    for message in run().of(f"refused: {case}"):
        assert re.search(REFUSED[case], message), message


@pytest.mark.parametrize("layers", range(3))
def test_a_normalised_layer_costs_two_sums_on_each_way(layers):
    for found in run().of(f"traffic {layers}"):
        assert found == [1 + 4 * layers] * 3


def test_a_process_reads_its_own_rows_only():
    first, second = run().of("rows read")
    assert len(first["train"]) == len(second["train"]) == 3 * 5
    assert len({*first["train"], *second["train"]}) == 30
    assert first["dev"] == 2 * list(range(10))
    assert second["dev"] == 2 * list(range(10, 20))
    assert first["at start"] == second["at start"]
    assert len(first["again"]) == len({*first["again"], *second["again"]}) / 2 == 5


def test_processes_draw_different_numbers():
    first, second = run().of("draws")
    assert not set(first[:4]) & set(second[:4])
    assert first[4:] != second[4:]
