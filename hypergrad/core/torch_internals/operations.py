"""Operations of torch, and switches for their kernels."""

from typing import Any

import torch
from torch.utils import checkpoint

_C: Any = torch._C
_ATEN: Any = torch.ops.aten
_T: Any = torch
_CHECKPOINT: Any = checkpoint

DisableTorchFunctionSubclass = _C.DisableTorchFunctionSubclass
"""A context in which a subclass of Tensor is a plain one. torch documents it under this name for `__torch_function__`;
when it goes, take its successor."""
OPERATIONS = _C._VariableFunctions
"""Holds the operations on tensors that `torch` shows. When it goes, take the type of `torch.add` for all of them."""
NN_OPERATIONS = _C._nn
"""Holds operations of `torch.nn.functional` under which they reach `__torch_function__`. When it goes, leave it out:
the tests of Taylor rules name those that then have no rule."""
SOFTMAX_BACKWARDS = (_ATEN._log_softmax_backward_data, _ATEN._softmax_backward_data)
"""Operations in the gradient of a softmax. When they go, leave them out: a second derivative is to be
traced."""
UNSAFE_VIEW = _ATEN._unsafe_view.default
"""The reshape that a matrix product ends with in a trace. When it goes, leave it out."""
foreach_add, foreach_sub, foreach_mul, foreach_div = _T._foreach_add, _T._foreach_sub, _T._foreach_mul, _T._foreach_div
"""Arithmetic on lists of tensors by one kernel, which torch's own optimisers use too. When one goes, write a loop."""
foreach_sqrt, foreach_clamp_min, foreach_copy_ = _T._foreach_sqrt, _T._foreach_clamp_min, _T._foreach_copy_
"""More of them."""
SDP_SWITCHES = {
    kernel: (getattr(_C, f"_get_{kernel}_sdp_enabled"), getattr(_C, f"_set_sdp_use_{kernel}"))
    for kernel in ("flash", "mem_efficient", "cudnn", "overrideable", "math")
}
"""How each kernel of attention is asked about and switched; `torch.nn.attention.sdpa_kernel`, the public way, is a
context of tens of microseconds, and misses one. When one goes, take that."""
CUDNN_SWITCH = (_C._get_cudnn_enabled, _C._set_cudnn_enabled)
"""cuDNN, on or off; `torch.backends.cudnn.flags` also sets precisions. When it goes, take that, with
them as they are."""
ONEDNN_SWITCH = (_C._get_mkldnn_enabled, _C._set_mkldnn_enabled)
"""oneDNN, on or off; `torch.backends.mkldnn.flags` warns without an Intel GPU. When it goes, take that."""


def recomputation() -> tuple[Any, Any]:
    """What `torch.utils.checkpoint.checkpoint` calls, with and without `use_reentrant`.

    When one goes: replace `torch.utils.checkpoint.checkpoint` itself, which modules may have imported by name before.
    """
    return _CHECKPOINT.CheckpointFunction, _CHECKPOINT._checkpoint_without_reentrant_generator


def set_recomputation(functions: tuple[Any, Any]) -> None:
    """Let `torch.utils.checkpoint.checkpoint` call these; when one goes, see `recomputation`."""
    _CHECKPOINT.CheckpointFunction, _CHECKPOINT._checkpoint_without_reentrant_generator = functions
