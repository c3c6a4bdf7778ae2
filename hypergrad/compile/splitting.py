"""Graphs split by what depends on which arguments."""

from collections.abc import Iterable, Sequence

from torch import fx


def dependents(nodes: Sequence[fx.Node], arguments: Sequence[fx.Node]) -> set[fx.Node]:
    """The arguments and all nodes that depend on them; `nodes` are in the order of the graph."""
    found = set(arguments)
    for node in nodes:
        if found.intersection(node.all_input_nodes):
            found.add(node)
    return found


def first_half(nodes: Sequence[fx.Node], reached: set[fx.Node], shared: Iterable[fx.Node]) -> fx.Graph:
    """The graph of the nodes that are not reached, with the values of the shared ones as its results."""
    graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    for node in nodes:
        if node not in reached:
            copies[node] = graph.node_copy(node, lambda x: copies[x])
    graph.output(tuple(copies[node] for node in shared))
    return graph


def split_by_argument(whole: fx.GraphModule, num_early: int) -> tuple[fx.GraphModule, fx.GraphModule]:
    """A graph without side effects in two: what does not depend on the later arguments, and the rest.

    What depends on no argument, such as a tensor of zeros, is in the rest too: a compiler makes a number of it.

    Returns:
        (*early) ↦ what they share, and (*what they share, *late) ↦ the results.
    """
    nodes = list(whole.graph.nodes)
    arguments = [node for node in nodes if node.op == "placeholder"]
    reached, given = {*dependents(nodes, arguments[num_early:]), nodes[-1]}, dependents(nodes, arguments)
    used = dict.fromkeys(x for node in nodes if node in reached for x in node.all_input_nodes if x not in reached)
    shared = [node for node in used if node in given]
    before, after = first_half(nodes, reached, shared), fx.Graph()
    rest = {node: after.placeholder(f"shared_{i}") for i, node in enumerate(shared)}
    rest |= {node: after.node_copy(node) for node in arguments[num_early:]}
    for node in nodes:
        if node not in rest and (node in reached or node not in given):
            rest[node] = after.node_copy(node, lambda x: rest[x])
    before.eliminate_dead_code()
    after.eliminate_dead_code()
    return fx.GraphModule(whole, before), fx.GraphModule(whole, after)
