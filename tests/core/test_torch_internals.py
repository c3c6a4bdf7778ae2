"""Private names of torch stand in one package, and what is needed of each works; else its message says what to do."""

import ast
import inspect
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.func import grad, vmap
from torch.utils.data import DataLoader

import hypergrad
from hypergrad.core import torch_internals
from hypergrad.core.torch_internals import inductor, modules, objects, operations, tracing, transforms, trees

FOLDER = Path(inspect.getfile(torch_internals)).parent
PACKAGE = Path(inspect.getfile(hypergrad)).parent
PARTS = {path.stem: path for path in sorted(FOLDER.glob("*.py")) if path.stem != "__init__"}


class Alone(torch.Tensor):
    """A subclass whose operations are all its own."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        with operations.DisableTorchFunctionSubclass():
            return "its own" if func is torch.neg else func(*args, **(kwargs or {}))


class Empty(torch.Tensor):
    """A subclass with no entries, which refuses all operations."""

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise NotImplementedError


def hooked() -> nn.Linear:
    layer = nn.Linear(2, 1)
    layer.register_forward_hook(lambda *_: None)
    layer.register_forward_pre_hook(lambda *_: None)
    layer.weight.register_hook(lambda gradient: gradient)
    layer.bias.register_post_accumulate_grad_hook(lambda x: None)
    return layer


def copied(set_: Callable, of: Callable) -> bool:
    """Whether what is set in a shallow copy of a module leaves the module as it is."""
    layer = nn.BatchNorm1d(2)
    there = layer.__new__(type(layer))
    there.__dict__ = layer.__dict__.copy()
    set_(there, {"other": torch.ones(1) if of is modules.buffers_of else nn.Tanh()})
    return list(of(there)) == ["other"] and "other" not in of(layer)


def traced() -> torch.fx.GraphModule:
    return tracing.make_fx(lambda x: (x.softmax(0) @ x.view(-1, 1)).sum())(torch.ones(3))


def names_in(graph: torch.fx.GraphModule) -> list[str]:
    return [str(node.target) for node in graph.graph.nodes]


def seen_by_dispatch() -> list[str]:
    found = []

    class Seeing(tracing.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            found.append(func)
            return func(*args, **(kwargs or {}))

    with Seeing():
        torch.ones(2).add(1)
    return [str(func) for func in found if isinstance(func, tracing.OpOverload)]


def is_traced_by_proxy() -> bool:
    found = []

    def function(x):
        found.append(tracing.get_proxy_mode() is not None)
        with tracing.disable_proxy_modes_tracing():
            found.append(tracing.get_proxy_mode() is None)
        return x + 1

    tracing.make_fx(function)(torch.ones(1))
    return found == [True, True] and tracing.get_proxy_mode() is None


def compiled() -> bool:
    mode = tracing.FakeTensorMode(shape_env=inductor.ShapeEnv())
    graph = tracing.make_fx(lambda x: [x.sin() + x.sin()])(torch.ones(3))
    lean = inductor.fx_graph_cse(graph.graph)
    graph = torch.fx.GraphModule(graph, lean)
    with mode:
        like = [torch.empty(3)]
    with inductor.tracing(inductor.TracingContext(mode)), inductor.config.patch(cpp_wrapper=False):
        ours = inductor.detect_fake_mode(like) is mode
        run = inductor.compile_fx_inner(graph, like)
    x = torch.rand(3)
    return ours and names_in(graph).count("aten.sin.default") == 1 and torch.allclose(run([x])[0], 2 * x.sin())


def in_transforms() -> tuple[bool, bool, list, bool]:
    """Whether torch.func is at work, whether x is its tensor, which transforms there are, whether they can be left."""
    found = []

    def function(x):
        kinds = [one.key() for one in transforms.retrieve_all_functorch_interpreters()]
        with transforms.temporarily_clear_interpreter_stack():
            outside = transforms.peek_interpreter_stack() is None
        wrapped = transforms.is_functorch_wrapped_tensor(x)
        found.append((transforms.peek_interpreter_stack() is not None, wrapped, kinds, outside))
        return x.sin()

    vmap(grad(function))(torch.ones(2))
    return found[0]


def unwrapped_is_plain() -> bool:
    found = []
    vmap(lambda x: found.append(transforms.get_unwrapped(x)) or x)(torch.ones(2))
    return found[0].shape == (2,) and not transforms.is_functorch_wrapped_tensor(found[0])


def batched_pass() -> list[tuple[bool, tuple[int, ...], bool]]:
    found = []

    class Seen(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, column):  # pyright: ignore[reportIncompatibleMethodOverride]
            inner = transforms.remove_batch_dim(column, 1)
            back = transforms.add_batch_dim(inner, 1)
            found.append((transforms.is_batched(column), tuple(inner.shape), transforms.is_batched(back)))
            return back

    x = torch.ones(3, requires_grad=True)
    torch.autograd.grad(Seen.apply(x), x, torch.eye(3), is_grads_batched=True)  # pyright: ignore[reportArgumentType]
    return found


def level_in_forward_mode() -> list[bool]:
    before = transforms.forward_ad_level() < 0
    with forward_ad.dual_level():
        return [before, transforms.forward_ad_level() >= 0]


def summaries_written() -> list[str]:
    found = []
    writer = SimpleNamespace(_get_file_writer=lambda: SimpleNamespace(add_summary=found.append))
    objects.add_summary(writer, "a summary")
    return found


def real_writer_has_it() -> bool:
    from torch.utils.tensorboard import SummaryWriter

    return callable(SummaryWriter._get_file_writer)


def step_hooks() -> list[bool]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))])
    before = objects.has_step_hooks(optimizer)
    optimizer.register_step_post_hook(lambda *_: None)
    return [before, objects.has_step_hooks(optimizer)]


def workers_ended() -> bool:
    batches = iter(DataLoader(list(range(4)), num_workers=1))  # pyright: ignore[reportArgumentType]
    next(batches)
    objects.end_workers(batches)
    return not any(worker.is_alive() for worker in batches._workers)  # type: ignore[attr-defined]


def stored() -> bool:
    import torch.distributed as dist

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)  # pyright: ignore[reportPrivateImportUsage]
    try:
        objects.default_store().set("key", "value")
        return objects.default_store().get("key") == b"value"
    finally:
        dist.destroy_process_group()


def recomputed() -> bool:
    """Whether `checkpoint` calls what is set."""
    from torch.utils.checkpoint import checkpoint

    before, seen = operations.recomputation(), []
    apply = SimpleNamespace(apply=lambda *args: seen.append("reentrant"))

    def without(*args, **kwargs):
        seen.append("without")
        yield

    try:
        operations.set_recomputation((apply, before[1]))
        checkpoint(torch.sin, torch.ones(1), use_reentrant=True)
        operations.set_recomputation((before[0], without))
        checkpoint(torch.sin, torch.ones(1), use_reentrant=False)
    finally:
        operations.set_recomputation(before)
    return seen == ["reentrant", "without"]


def switched(switch: tuple[Callable, Callable]) -> bool:
    """Whether a switch turns off what it asks about."""
    is_on, set_ = switch
    before = is_on()
    try:
        set_(False)
        return not is_on()
    finally:
        set_(before)


def foreach_is(name: str, expected: list[float], *more: object) -> bool:
    x = [torch.tensor([4.0]), torch.tensor([9.0])]
    found = getattr(operations, f"foreach_{name}")(x, *more)
    return [value.item() for value in (x if found is None else found)] == expected


def wrapped() -> torch.Tensor:
    return objects.without_entries(Empty, torch.ones(2, 3, dtype=torch.float64))


TREE = {"a": (torch.ones(1), 2)}
LINEAR = nn.Linear(2, 1)
CHECKS: dict[str, Callable[[], object]] = {
    **dict.fromkeys((f"inductor.{name}" for name in ("TracingContext", "compile_fx_inner", "config")), compiled),
    **dict.fromkeys((f"inductor.{name}" for name in ("detect_fake_mode", "fx_graph_cse", "tracing")), compiled),
    "inductor.ShapeEnv": compiled,
    "inductor.select_decomp_table": lambda: torch.ops.aten.silu_backward.default in inductor.select_decomp_table(),
    "modules.PARAMETERS": lambda: getattr(LINEAR, modules.PARAMETERS)["weight"] is LINEAR.weight,
    "modules.BUFFERS": lambda: "running_mean" in getattr(nn.BatchNorm1d(2), modules.BUFFERS),
    "modules.SUBMODULES": lambda: list(getattr(nn.Sequential(LINEAR), modules.SUBMODULES)) == ["0"],
    "modules.CALL": lambda: callable(getattr(LINEAR, modules.CALL)),
    "modules.COMPILED": lambda: getattr(torch.compile(LINEAR), modules.COMPILED) is LINEAR,
    "modules.NormBase": lambda: isinstance(nn.InstanceNorm1d(2), modules.NormBase),
    "modules.BatchNorm": lambda: (
        isinstance(nn.BatchNorm2d(2), modules.BatchNorm) and not isinstance(nn.InstanceNorm1d(2), modules.BatchNorm)
    ),
    "modules.Loss": lambda: isinstance(nn.CrossEntropyLoss(), modules.Loss),
    "modules.WeightNorm": lambda: isinstance(
        nn.utils.parametrizations.weight_norm(nn.Linear(2, 1)).parametrizations.weight[0],  # type: ignore[index,union-attr]
        modules.WeightNorm,
    ),
    "modules.parameters_of": lambda: modules.parameters_of(LINEAR)["bias"] is LINEAR.bias,
    "modules.buffers_of": lambda: "running_var" in modules.buffers_of(nn.BatchNorm1d(2)),
    "modules.submodules_of": lambda: modules.submodules_of(nn.Sequential(LINEAR))["0"] is LINEAR,
    "modules.set_buffers": lambda: copied(modules.set_buffers, modules.buffers_of),
    "modules.set_submodules": lambda: copied(modules.set_submodules, modules.submodules_of),
    "modules.forward_hooks_of": lambda: len(modules.forward_hooks_of(hooked())) == 1,
    "modules.forward_pre_hooks_of": lambda: len(modules.forward_pre_hooks_of(hooked())) == 1,
    "modules.gradient_hooks_of": lambda: (
        [len(modules.gradient_hooks_of(x)) for x in hooked().parameters()] == [1, 1]
        and not modules.gradient_hooks_of(LINEAR.weight)
    ),
    "objects.version_of": lambda: objects.version_of(torch.zeros(1).add_(1).mul_(2)) == 2,
    "objects.outputs_of": lambda: (
        [tuple(one.shape) for one in objects.outputs_of(torch.ones(2, 3, requires_grad=True).sin().grad_fn)] == [(2, 3)]
    ),
    "objects.without_entries": lambda: (
        (type(wrapped()), wrapped().shape, wrapped().dtype) == (Empty, (2, 3), torch.float64)
    ),
    "objects.end_workers": workers_ended,
    "objects.add_summary": lambda: summaries_written() == ["a summary"] and real_writer_has_it(),
    "objects.has_step_hooks": lambda: step_hooks() == [False, True],
    "objects.default_store": stored,
    "operations.DisableTorchFunctionSubclass": lambda: torch.neg(torch.ones(1).as_subclass(Alone)) == "its own",
    "operations.OPERATIONS": lambda: hasattr(operations.OPERATIONS, "add"),
    "operations.NN_OPERATIONS": lambda: hasattr(operations.NN_OPERATIONS, "gelu"),
    "operations.SOFTMAX_BACKWARDS": lambda: len(operations.SOFTMAX_BACKWARDS) == 2,
    "operations.UNSAFE_VIEW": lambda: isinstance(operations.UNSAFE_VIEW, tracing.OpOverload),
    "operations.foreach_add": lambda: foreach_is("add", [5, 10], 1),
    "operations.foreach_sub": lambda: foreach_is("sub", [3, 8], 1),
    "operations.foreach_mul": lambda: foreach_is("mul", [8, 18], 2),
    "operations.foreach_div": lambda: foreach_is("div", [2, 4.5], 2),
    "operations.foreach_sqrt": lambda: foreach_is("sqrt", [2, 3]),
    "operations.foreach_clamp_min": lambda: foreach_is("clamp_min", [5, 9], 5),
    "operations.foreach_copy_": lambda: foreach_is("copy_", [1, 1], [torch.ones(1), torch.ones(1)]),
    "operations.SDP_SWITCHES": lambda: all(map(switched, operations.SDP_SWITCHES.values())),
    "operations.CUDNN_SWITCH": lambda: switched(operations.CUDNN_SWITCH),
    "operations.ONEDNN_SWITCH": lambda: switched(operations.ONEDNN_SWITCH),
    "operations.recomputation": recomputed,
    "operations.set_recomputation": recomputed,
    "tracing.make_fx": lambda: "aten._softmax.default" in names_in(traced()),
    "tracing.disable_proxy_modes_tracing": is_traced_by_proxy,
    "tracing.get_proxy_mode": is_traced_by_proxy,
    "tracing.get_decompositions": lambda: len(tracing.get_decompositions([torch.ops.aten.softplus_backward])) > 0,
    "tracing.FakeTensorMode": compiled,
    "tracing.OpOverload": lambda: "aten.add.Tensor" in seen_by_dispatch(),
    "tracing.TorchDispatchMode": lambda: "aten.add.Tensor" in seen_by_dispatch(),
    "transforms.peek_interpreter_stack": lambda: in_transforms()[0] and transforms.peek_interpreter_stack() is None,
    "transforms.is_functorch_wrapped_tensor": lambda: in_transforms()[1],
    "transforms.get_unwrapped": unwrapped_is_plain,
    "transforms.TransformType": lambda: (
        in_transforms()[2] == [transforms.TransformType.Vmap, transforms.TransformType.Grad]
    ),
    "transforms.retrieve_all_functorch_interpreters": lambda: len(in_transforms()[2]) == 2,
    "transforms.temporarily_clear_interpreter_stack": lambda: in_transforms()[3],
    "transforms.forward_ad_level": lambda: level_in_forward_mode() == [True, True],
    **dict.fromkeys(
        (f"transforms.{name}" for name in ("remove_batch_dim", "add_batch_dim", "is_batched")),
        lambda: batched_pass() == [(True, (3, 3), True)],
    ),
    "trees.TreeSpec": lambda: isinstance(trees.tree_structure(TREE), trees.TreeSpec),
    "trees.keystr": lambda: trees.keystr(trees.tree_flatten_with_path(TREE)[0][1][0]) == "['a'][1]",
    "trees.tree_flatten": lambda: trees.tree_flatten(TREE)[0][1] == 2,
    "trees.tree_flatten_with_path": lambda: len(trees.tree_flatten_with_path(TREE)[0]) == 2,
    "trees.tree_leaves": lambda: trees.tree_leaves(TREE)[1] == 2,
    "trees.tree_map": lambda: trees.tree_map(lambda x: x + 1, TREE)["a"][1] == 3,
    "trees.tree_map_only": lambda: trees.tree_map_only(int, lambda x: x + 1, TREE)["a"][1] == 3,
    "trees.tree_map_with_path": lambda: trees.tree_map_with_path(lambda path, x: len(path), TREE)["a"] == (2, 2),
    "trees.tree_structure": lambda: trees.tree_structure(TREE) == trees.tree_structure({"a": (0, 0)}),
    "trees.tree_unflatten": lambda: trees.tree_unflatten([1, 2], trees.tree_structure(TREE)) == {"a": (1, 2)},
}


def documented(path: Path) -> dict[str, str]:
    """What is said of each public name of a file."""
    tree, found = ast.parse(path.read_text()), {}
    for node, after in zip(tree.body, [*tree.body[1:], None], strict=True):
        said = ast.literal_eval(after.value) if isinstance(after, ast.Expr) else ast.get_docstring(tree)
        if isinstance(node, ast.FunctionDef):
            found[node.name] = ast.get_docstring(node)
        elif isinstance(node, ast.Assign):
            names = [part.id for target in node.targets for part in ast.walk(target) if isinstance(part, ast.Name)]
            found |= dict.fromkeys(names, said)
    return {name: text or "" for name, text in found.items() if not name.startswith("_")}


SAID = {f"{part}.{name}": text for part, path in PARTS.items() for name, text in documented(path).items()}


@pytest.mark.parametrize("name", CHECKS)
def test_torch_still_has_it(name):
    try:
        works, reason = CHECKS[name](), "it no longer does what is needed"
    except (AttributeError, ImportError, TypeError, RuntimeError) as error:
        works, reason = False, f"{type(error).__name__}: {error}"
    about = ast.get_docstring(ast.parse(PARTS[name.split(".")[0]].read_text()))
    assert works, f"{name} with torch {torch.__version__}: {reason}.\n{SAID[name]}\n{about}"


def test_each_name_is_tried_and_says_what_to_do_when_it_goes():
    assert sorted(CHECKS) == sorted(SAID)
    assert [name for name, text in SAID.items() if not text] == []


def private_names(path: Path) -> list[str]:
    """Imports of private names of torch, and attributes of torch's modules that begin with an underscore."""
    tree, found, modules_of_torch = ast.parse(path.read_text()), [], {"torch"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules_of_torch |= {one.asname for one in node.names if one.asname and one.name.startswith("torch")}
            found += [one.name for one in node.names if one.name.startswith("torch.") and "._" in one.name]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "torch":
            modules_of_torch |= {one.asname or one.name for one in node.names}
            dotted = [f"{node.module}.{one.name}" for one in node.names]
            found += [name for name in dotted if "._" in name or "proxy_tensor" in name or "symbolic_shapes" in name]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            text = ast.unparse(node)
            if text.split(".")[0] in modules_of_torch:
                found.append(text)
    return found


def test_no_other_file_uses_a_private_name_of_torch():
    files = [path for path in PACKAGE.rglob("*.py") if FOLDER not in path.parents]
    assert {str(path): names for path in files if (names := private_names(path))} == {}


def test_a_private_name_would_be_found(tmp_path):
    path = tmp_path / "uses.py"
    path.write_text(
        "import torch\nfrom torch import nn, distributed as dist\nfrom torch._C import _functorch\n"
        "torch._foreach_add\nnn.modules._functions\ndist._store\ntorch.Tensor.__add__\nself._mine\n"
    )
    assert private_names(path) == [
        "torch._C._functorch",
        "torch._foreach_add",
        "nn.modules._functions",
        "dist._store",
    ]
