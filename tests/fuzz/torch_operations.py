"""Operations of PyTorch, each with the same in numbers of 70 digits: the letters of the random compositions.

Each maps x and y of shape (2, 3), and a constant c of that shape, to a result of any shape. Those in `SAME` are written
once, for tensors and for arrays.
"""

import torch
from elementwise_operations import ELEMENTWISE
from operands import Operation
from reduction_operations import REDUCTIONS
from shape_operations import SHAPES

SAME: dict[str, Operation] = {
    "add": lambda x, y, c: x + y,
    "add-constant": lambda x, y, c: x + c,
    "sub": lambda x, y, c: x - y,
    "rsub": lambda x, y, c: 1 - x,
    "neg": lambda x, y, c: -x,
    "mul": lambda x, y, c: x * y,
    "mul-self": lambda x, y, c: x * x,
    "mul-constant": lambda x, y, c: c * x,
    "mul-zero": lambda x, y, c: x * 0 + y,
    "div": lambda x, y, c: x / (2 + y * y),
    "div-plain": lambda x, y, c: x / y,
    "rdiv": lambda x, y, c: 1 / (2 + x * x),
    "pow-0": lambda x, y, c: x**0 + y,
    "pow-1": lambda x, y, c: x**1,
    "pow-2": lambda x, y, c: x**2,
    "pow-5": lambda x, y, c: x**5,
    "pow-18": lambda x, y, c: x**18,
    "pow-minus-1": lambda x, y, c: x**-1,
    "pow-minus-2": lambda x, y, c: (x * x + 1) ** -2,
    "broadcast": lambda x, y, c: x + y[:1],
    "outer-sum": lambda x, y, c: x[0][:, None] + y[1],
    "index": lambda x, y, c: x[:, 1:],
    "index-list": lambda x, y, c: x[[1, 0, 1]],
    "index-last": lambda x, y, c: x[..., -1],
    "index-none": lambda x, y, c: x[:, None],
    "transpose": lambda x, y, c: x.T,
    "reshape": lambda x, y, c: x.reshape(3, 2),
    "flatten": lambda x, y, c: x.flatten(),
    "sum": lambda x, y, c: x.sum() + y,
    "sum-0": lambda x, y, c: x.sum(0),
    "mean": lambda x, y, c: x.mean(1),
    "cumsum": lambda x, y, c: x.cumsum(1),
    "cumprod": lambda x, y, c: x.cumprod(1),
    "prod": lambda x, y, c: x.prod() + y,
    "prod-1": lambda x, y, c: x.prod(1),
    "matmul": lambda x, y, c: x @ y.T,
    "matmul-constant": lambda x, y, c: c @ x.T,
    "matvec": lambda x, y, c: x @ y[0],
    "trace": lambda x, y, c: (x @ y.T).trace(),
    "diagonal": lambda x, y, c: (x.T @ y).diagonal(),
    "max": lambda x, y, c: x.max(),
    "min": lambda x, y, c: x.min() + y,
    "max-0": lambda x, y, c: x.max(0)[0] if isinstance(x, torch.Tensor) else x.max(0),
    "abs": lambda x, y, c: abs(x),
    "comparison": lambda x, y, c: (x > y) * x,
    "swapaxes": lambda x, y, c: x.swapaxes(0, 1),
    "squeeze": lambda x, y, c: x[:1].squeeze(),
    "repeat": lambda x, y, c: x[:, [0, 0, 1]],
}
OPERATIONS = {name: (f, f) for name, f in SAME.items()} | ELEMENTWISE | SHAPES | REDUCTIONS
"""By name: on tensors, and on arrays."""
