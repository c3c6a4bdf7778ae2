"""Graphs of tensor operations, rewritten to equal ones that cost less."""

from collections.abc import Callable

import torch
from torch import Tensor, fx

_ATEN = torch.ops.aten
_FUNCTIONS = {
    _ATEN.add.Tensor: torch.add,
    _ATEN.div.Tensor: torch.div,
    _ATEN.mm.default: torch.mm,
    _ATEN.mul.Tensor: torch.mul,
    _ATEN.neg.default: torch.neg,
    _ATEN.reshape.default: torch.reshape,
    _ATEN.sub.Tensor: torch.sub,
    _ATEN.sum.dim_IntList: torch.sum,
    _ATEN.t.default: torch.t,
}
"""Functions that call the same operation; those measured to do so a microsecond faster, and frequent."""


def lift_constants(whole: fx.GraphModule, stays: Callable[[Tensor], bool]) -> list[Tensor]:
    """Make the tensors that a graph holds its first arguments, so that compiled code does not depend on their values.

    Args:
        whole: changed in place.
        stays: whether a tensor remains a part of the graph.

    Returns:
        The tensors, in the order of the new arguments.
    """
    first, lifted = next(iter(whole.graph.nodes)), dict[str, fx.Node]()
    for node in [node for node in whole.graph.nodes if node.op == "get_attr"]:
        name = str(node.target)
        if stays(getattr(whole, name)):
            continue
        if name not in lifted:
            with whole.graph.inserting_before(first):
                lifted[name] = whole.graph.placeholder(f"constant_{len(lifted)}")
        node.replace_all_uses_with(lifted[name])
        whole.graph.erase_node(node)
    whole.recompile()
    return [getattr(whole, name) for name in lifted]


def drop_aliases(whole: fx.GraphModule) -> None:
    """Remove what only gives a tensor another name, in a graph that changes no tensor in place."""
    for node in list(whole.graph.nodes):
        if node.target in (_ATEN.alias.default, _ATEN.detach.default):
            node.replace_all_uses_with(node.all_input_nodes[0])
            whole.graph.erase_node(node)
    whole.recompile()


def drop_logarithms(whole: fx.GraphModule) -> None:
    """Form exp(x − log s) as exp(x) / s if exp(x) is there anyway, as in the gradient of a cross-entropy.

    A softmax then needs one exponential for each entry instead of two.
    """
    for node in [node for node in whole.graph.nodes if node.target is _ATEN.exp.default]:
        difference = node.args[0]
        if difference.target is not _ATEN.sub.Tensor or difference.kwargs:
            continue
        x, logarithm = difference.args
        if not isinstance(logarithm, fx.Node) or logarithm.target is not _ATEN.log.default:
            continue
        found = [user for user in x.users if user.target is _ATEN.exp.default]
        if found:
            with whole.graph.inserting_before(node):
                quotient = whole.graph.call_function(_ATEN.div.Tensor, (found[0], logarithm.args[0]))
            node.replace_all_uses_with(quotient)
    whole.graph.eliminate_dead_code()
    whole.recompile()


def call_functions(graph: fx.Graph) -> None:
    """Call torch's functions instead of operations where both are the same, because their calls are faster."""
    for node in graph.nodes:
        node.target = _FUNCTIONS.get(node.target, node.target)
