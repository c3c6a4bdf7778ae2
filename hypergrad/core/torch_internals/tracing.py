"""Functions as lists of operations, and what sees each operation."""

import torch
from torch import _decomp, _subclasses
from torch.fx.experimental import proxy_tensor
from torch.utils import _python_dispatch

make_fx = proxy_tensor.make_fx
"""The operations of a function in order, its derivatives among them. When it goes, take `torch.export` without its
guards, or refuse to compile (`CannotCompileError`): all is computed without compilation too."""
disable_proxy_modes_tracing = proxy_tensor.disable_proxy_modes_tracing
"""A context in which operations are computed, and not traced. When it goes, compute such constants before the trace."""
get_proxy_mode = proxy_tensor.get_proxy_mode
"""What traces now, or None. When it goes, let `hypergrad.compile.tracing` keep a flag of its own."""
get_decompositions = _decomp.get_decompositions
"""Operations written in simpler ones. When it goes, take `torch.export.default_decompositions`."""
FakeTensorMode = _subclasses.FakeTensorMode
"""Tensors with shapes and strides but without entries, for Inductor. Their public use is by `torch.export` alone; when
this goes, let `hypergrad.compile.inductor` refuse to compile."""
OpOverload = torch._ops.OpOverload
"""The type of an operation in a trace. When it goes, take the type of `torch.ops.aten.add.Tensor`."""
TorchDispatchMode = _python_dispatch.TorchDispatchMode
"""A context that sees each operation; torch documents it under this name. When it goes, take its successor."""
