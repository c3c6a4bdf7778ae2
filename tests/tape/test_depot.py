import torch

from hypergrad.tape.depot import Depot


def test_states_beyond_the_budget_are_moved_out_and_come_back():
    states = [{"params": {"w": torch.full((4,), float(i))}} for i in range(3)]  # 32 bytes each
    depot = Depot("disk", budget=64)
    for key, state in enumerate(states):
        depot.put(key, state)
    assert set(depot._kept) == {0, 1}
    assert torch.equal(depot.get(2)["params"]["w"], states[2]["params"]["w"])
    depot.close()
