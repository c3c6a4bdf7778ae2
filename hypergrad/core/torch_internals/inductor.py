"""Inductor, the compiler under torch.compile; imported by functions, because its import takes seconds.

torch.compile is its public face. It guards each call in some 50 µs, and splits nothing. When one of these goes, compile
with torch.compile as `hypergrad.compile.torch_compile` does, or refuse to compile (`CannotCompileError`).
"""

from torch import _guards
from torch._functorch import compile_utils
from torch._inductor import compile_fx, decomposition
from torch._inductor import config as _config
from torch.fx.experimental import symbolic_shapes

TracingContext = _guards.TracingContext
"""What a compilation knows; without it, Inductor keeps no graph for the next process."""
compile_fx_inner = compile_fx.compile_fx_inner
"""The code for a list of operations, without guards."""
config = _config
"""Settings, for one compilation."""
detect_fake_mode = _guards.detect_fake_mode
"""The mode of fake tensors."""
fx_graph_cse = compile_utils.fx_graph_cse
"""A list of operations without common subexpressions."""
select_decomp_table = decomposition.select_decomp_table
"""The operations that Inductor wants written in simpler ones."""
ShapeEnv = symbolic_shapes.ShapeEnv
"""Sizes that are symbols; of which there are none here, but Inductor asks."""
tracing = _guards.tracing
"""A context with a `TracingContext`."""
