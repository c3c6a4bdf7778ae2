"""Graphs split by what depends on which arguments."""

from collections.abc import Sequence

from torch import fx


def dependents(nodes: Sequence[fx.Node], arguments: Sequence[fx.Node]) -> set[fx.Node]:
    """The arguments and all nodes that depend on them; `nodes` are in the order of the graph."""
    found = set(arguments)
    for node in nodes:
        if found.intersection(node.all_input_nodes):
            found.add(node)
    return found


def split_by_argument(whole: fx.GraphModule, num_early: int) -> tuple[fx.GraphModule, fx.GraphModule]:
    """A graph without side effects in two: what does not depend on the later arguments, and the rest.

    Returns:
        (*early) ↦ what they share, and (*what they share, *late) ↦ the results.
    """
    nodes = list(whole.graph.nodes)
    arguments = [node for node in nodes if node.op == "placeholder"]
    reached = {*dependents(nodes, arguments[num_early:]), nodes[-1]}
    used = dict.fromkeys(x for node in nodes if node in reached for x in node.all_input_nodes if x not in reached)
    shared = [node for node in used if node.op != "get_attr"]
    before, after = fx.Graph(), fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in nodes:
        if node not in reached:
            copies[node] = before.node_copy(node, lambda x: copies[x])
    before.output(tuple(copies[node] for node in shared))
    rest = {node: after.placeholder(f"shared_{i}") for i, node in enumerate(shared)}
    rest |= {node: after.node_copy(node) for node in (*arguments[num_early:], *used) if node not in rest}
    for node in nodes:
        if node in reached and node.op != "placeholder":
            rest[node] = after.node_copy(node, lambda x: rest[x])
    before.eliminate_dead_code()
    return fx.GraphModule(whole, before), fx.GraphModule(whole, after)
