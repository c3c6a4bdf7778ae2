"""Tensors of which each rank holds some entries, with sums, norms and products over the entries of all ranks."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from hypergrad.core.autodiff import GRADIENTS, Tensors, leaves
from hypergrad.core.collectives import Ranks
from hypergrad.core.order import first_order
from hypergrad.core.torch_internals.operations import DisableTorchFunctionSubclass


class LocalShard(Tensor):
    """The entries of a tensor that this rank holds.

    Shapes are those of these entries. Operations entry by entry compute on them. Sums, norms and dot products are those
    of the whole tensor, by an all-reduce of a number, so all ranks get the same one and take the same branch. Any other
    operation is refused: its result would be that of the part alone. DTensor would be such a type too, but `item` of a
    norm of a DTensor is silently that of the part (torch 2.13), and each of its operations costs some 40 µs.

    Attributes:
        ranks: that hold the entries.
        is_own: whether what a sum is used for counts as each rank's own, so that derivatives are summed over the ranks.
    """

    ranks: Ranks
    is_own: bool

    @staticmethod
    def of(x: Tensor, ranks: Ranks, *, is_own: bool = False) -> "LocalShard":
        """The shard with the entries of x, which are not copied."""
        with DisableTorchFunctionSubclass():
            shard = x.as_subclass(LocalShard)
        shard.ranks, shard.is_own = ranks, is_own
        return shard

    @classmethod
    def __torch_function__(cls, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs, like = func.__name__, kwargs or {}, next(_shards((args, kwargs)))
        with DisableTorchFunctionSubclass():
            if name in _REDUCTIONS:
                return _REDUCTIONS[name](like, func, args, kwargs)
            if name in _PLAIN:
                return func(*args, **kwargs)
            if func is torch.autograd.grad:
                return tuple(_as_input(x, g) for x, g in zip(args[1], func(*args, **kwargs), strict=True))
            if name not in _ENTRYWISE:
                raise ValueError(_refusal(name))
            if name not in _OF_ONE:
                _require_shards((args, kwargs), name)
            return _marked(func(*args, **kwargs), like, args)

    def __deepcopy__(self, memo: dict[int, Any]) -> "LocalShard":
        """A copy of the entries."""
        return LocalShard.of(plain(self).clone(), self.ranks, is_own=self.is_own)


def plain(x: Tensor) -> Tensor:
    """The entries of this rank as an ordinary tensor, which is not a copy."""
    with DisableTorchFunctionSubclass():
        return x.as_subclass(Tensor)


def sums_of(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The sum of all entries of each tensor; those of shards by one all-reduce for all of them."""
    first = tensors[0]
    if not isinstance(first, LocalShard):
        return [x.sum() for x in tensors]
    return _totals(first, [plain(x).sum() for x in tensors])


def standard_normal(like: Tensor, generator: torch.Generator) -> Tensor:
    """Random numbers in the shape and dtype of a tensor and on its device, drawn in float64 on the CPU.

    Those of the shards of one tensor are independent.
    """
    if isinstance(like, LocalShard):
        seed = int(torch.randint(2**62, (), generator=generator)) ^ like.ranks.rank
        generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(like.shape, generator=generator, dtype=torch.float64)
    return drawn.to(like) if not isinstance(like, LocalShard) else LocalShard.of(drawn.to(plain(like)), like.ranks)


def _shards(tree: Any) -> Iterator[LocalShard]:
    for x in tree.values() if isinstance(tree, dict) else tree:
        if isinstance(x, LocalShard):
            yield x
        elif isinstance(x, tuple | list | dict):
            yield from _shards(x)


def _require_shards(tree: Any, name: str) -> None:
    """Require that all tensors are shards or numbers.

    Raises:
        ValueError: if one is not: which of its entries belong to the shard is not known.
    """
    for x in tree.values() if isinstance(tree, dict) else tree:
        if isinstance(x, tuple | list | dict):
            _require_shards(x, name)
        elif isinstance(x, Tensor) and not isinstance(x, LocalShard) and x.ndim > 0:
            raise ValueError(
                f"{name} must have operands that are all sharded, or numbers, but one is a whole tensor of shape "
                f"{tuple(x.shape)}: parameters are sharded over the ranks. A hyperparameter that multiplies parameters "
                "entry by entry must be one number, or one for each tensor (per='all' or per='tensor')."
            )


def _marked(found: Any, like: LocalShard, args: Any) -> Any:
    """The results as shards; one that is an argument, of an operation in place, is that very object."""
    if isinstance(found, tuple | list):
        return type(found)(_marked(x, like, args) for x in found)
    if not isinstance(found, Tensor):
        return found
    if args and found is args[0]:
        return found if isinstance(found, LocalShard) else LocalShard.of(found, like.ranks, is_own=like.is_own)
    return LocalShard.of(found, like.ranks, is_own=like.is_own)


def _as_input(x: Tensor, grad: Tensor | None) -> Tensor | None:
    if grad is None or not isinstance(x, LocalShard):
        return grad
    return LocalShard.of(grad, x.ranks, is_own=x.is_own)


def _totals(like: LocalShard, parts: Sequence[Tensor]) -> list[Tensor]:
    """The sums over the ranks of what each found in its shards.

    Raises:
        ValueError: if they are differentiated where it would not be known how.
    """
    if not any(part.requires_grad for part in parts):
        return list(like.ranks.total(parts))
    if not like.is_own:
        raise ValueError(_refusal("a differentiable sum"))
    return list(like.ranks.vary(like.ranks.total(parts)))


def _extreme(like: LocalShard, part: Tensor, op: Any) -> Tensor:
    found = part.detach().clone()
    dist.all_reduce(found, op, group=like.ranks.group)
    return found


def _summed(like: LocalShard, func: Callable[..., Any], args: Any, kwargs: Any) -> Tensor:
    """The sum of all entries of one tensor, or of the products of those of two.

    Raises:
        ValueError: if it is along an axis.
    """
    if not all(isinstance(x, LocalShard) and (len(args) == 1 or x.ndim == 1) for x in args) or "dim" in kwargs:
        raise ValueError(_refusal(f"{func.__name__} along an axis"))
    return _totals(like, [func(*args, **kwargs)])[0]


def _norm(like: LocalShard, func: Callable[..., Any], args: Any, kwargs: Any) -> Tensor:
    order = args[1] if len(args) > 1 else kwargs.get("ord", 2)
    if len(args) > 2 or set(kwargs) > {"ord"} or order not in (2, math.inf):
        raise ValueError(_refusal(f"{func.__name__} of order {order}, or along an axis"))
    if like.numel() == 0:
        part = torch.zeros((), dtype=like.dtype, device=like.device)
    else:
        part = torch.linalg.vector_norm(args[0], order)
    if order == math.inf:
        return _extreme(like, part, dist.ReduceOp.MAX)
    return _totals(like, [part**2])[0].sqrt()


def _largest(like: LocalShard, func: Callable[..., Any], args: Any, kwargs: Any) -> Tensor:
    if len(args) > 1 or kwargs:
        raise ValueError(_refusal(f"{func.__name__} along an axis"))
    lowest = -math.inf if like.is_floating_point() else torch.iinfo(like.dtype).min
    part = torch.full((), lowest, dtype=like.dtype, device=like.device) if like.numel() == 0 else args[0].max()
    return _extreme(like, part, dist.ReduceOp.MAX)


def _every(like: LocalShard, func: Callable[..., Any], args: Any, kwargs: Any) -> Tensor:
    """Whether all entries are true, or any is."""
    op = dist.ReduceOp.MIN if func.__name__ == "all" else dist.ReduceOp.MAX
    return _extreme(like, func(*args, **kwargs).to(torch.uint8), op).bool()


def _refusal(name: str) -> str:
    return (
        f"Parameters that are sharded over the ranks have no {name}: it would be computed on the shard of one rank "
        "alone. Of the linear solvers, CG and Neumann serve them; see docs/fsdp.md."
    )


def _value_and_gradient(function: Callable[[Tensors], Tensor], params: Tensors) -> tuple[Tensor, Tensors]:
    """The value and gradient of a function of shards.

    Raises:
        ValueError: if they are to be differentiated again.
    """
    if torch.is_grad_enabled():
        raise ValueError(
            "A gradient with respect to sharded parameters cannot be differentiated again, because FSDP2 has first "
            "derivatives alone. Use hg.Implicit(product=hg.CentredDifferences(), error_bar=False), or hg.SingleLoop "
            "with hg.F2SA or hg.SAMA."
        )
    w = leaves(params)

    @torch.enable_grad()
    def evaluated() -> tuple[Tensor, tuple[Tensor | None, ...]]:
        value = function(w)
        return value.detach(), torch.autograd.grad(value, tuple(w.values()), allow_unused=True)

    value, grads = first_order(evaluated)
    pairs = zip(w.items(), grads, strict=True)
    return value, {name: torch.zeros_like(x.detach()) if g is None else g for (name, x), g in pairs}


def _names(words: str) -> frozenset[str]:
    return frozenset(words.split())


GRADIENTS[LocalShard] = _value_and_gradient
_REDUCTIONS = {
    **dict.fromkeys(("sum", "dot", "vdot", "inner", "matmul", "count_nonzero"), _summed),
    **dict.fromkeys(("linalg_vector_norm", "norm"), _norm),
    **dict.fromkeys(("max", "amax"), _largest),
    **dict.fromkeys(("all", "any"), _every),
}
_PLAIN = _names(
    "numel nelement dim size stride element_size is_floating_point is_complex is_contiguous get_device data_ptr "
    "untyped_storage __len__ __hash__ __repr__ __format__"
)
"""What tells something of the entries of this rank, with their shapes."""
_OF_ONE = _names("view_as zeros_like ones_like empty_like requires_grad_ __get__ split")
_ENTRYWISE = _OF_ONE | _names(
    "add add_ sub sub_ __rsub__ rsub mul mul_ div div_ __rdiv__ true_divide neg abs sqrt rsqrt square pow __rpow__ "
    "reciprocal exp log sign tanh sigmoid clamp clamp_min clamp_max clamp_ maximum minimum addcmul addcmul_ addcdiv "
    "addcdiv_ lerp lerp_ where clone detach contiguous copy_ zero_ fill_ double float to isfinite isnan __invert__ "
    "logical_not logical_and logical_or lt le gt ge eq ne __lt__ __le__ __gt__ __ge__ view reshape flatten cat "
    "_foreach_add _foreach_sub _foreach_mul _foreach_div _foreach_sqrt _foreach_clamp_min"
)
"""Operations of which each entry of the result depends on the same entries of the operands, and changes of shape in
which the entries of the rank stay in order."""
