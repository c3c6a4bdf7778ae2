"""One array of a user's data as a tensor: from torch, numpy, pandas or Python lists."""

import sys
from typing import Any

import numpy as np
import torch
from torch import Tensor

_UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)
_LABELS = (torch.uint8, torch.int8, torch.int16, torch.int32)


def as_tensor(values: Any, what: str) -> Tensor:
    """The values as a dense tensor; it shares memory with a tensor or array where torch can do that.

    Args:
        values: a tensor, an array, a DataFrame of numbers, a Series, or nested lists of numbers.
        what: what an error calls them, such as "X of the train part".

    Raises:
        TypeError: if they are not numbers, or sparse.
    """
    if isinstance(values, Tensor):
        if values.layout != torch.strided:
            raise TypeError(_SPARSE.format(what, str(values.layout).removeprefix("torch.") + " tensor", "X.to_dense()"))
        return values.long() if values.dtype in _UNSIGNED else values
    if hasattr(values, "tocsr"):
        raise TypeError(_SPARSE.format(what, type(values).__name__, "X.toarray()"))
    if isinstance(values, list | tuple) and values and isinstance(values[0], Tensor):
        return as_tensor(torch.stack(list(values)), what)
    return _of_array(_numbers(values, what), what)


_SPARSE = (
    "{0} must be dense, because few layers of torch train on sparse inputs, but it is a {1}; convert it by {2}, or "
    "choose hg.Lasso, hg.ElasticNet or hg.SparseLogistic, which accept sparse inputs."
)


def as_labels(y: Tensor) -> Tensor:
    """Integer targets as int64, as losses of torch need them."""
    return y.long() if y.dtype in _LABELS else y


def columns_of(values: Any) -> tuple[str, ...]:
    """The names of the columns of a DataFrame; () for anything else."""
    return tuple(str(column) for column in values.columns) if is_pandas(values, "DataFrame") else ()


def index_of(values: Any) -> Any:
    """The labels of the rows of a DataFrame or Series; None for anything else."""
    return values.index if is_pandas(values, "DataFrame") or is_pandas(values, "Series") else None


def is_pandas(values: Any, kind: str) -> bool:
    """Whether the values are a DataFrame or Series of pandas, which need not be installed."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(values, getattr(pandas, kind))


def _numbers(values: Any, what: str) -> Any:
    """The values as a numpy array.

    Raises:
        TypeError: if there is no such array.
    """
    if is_pandas(values, "DataFrame"):
        return _of_frame(values, what)
    if is_pandas(values, "Series"):
        return _of_series(values, what)
    try:
        return np.asarray(values)
    except (ValueError, TypeError) as error:
        raise TypeError(
            f"{what} must be a tensor, an array or nested lists of numbers with as many entries in each row, but it is "
            f"a {type(values).__name__}: {str(error).splitlines()[0]}"
        ) from error


def _of_frame(frame: Any, what: str) -> Any:
    """The columns of a DataFrame as float64.

    Raises:
        TypeError: if a column does not hold numbers.
    """
    from pandas.api.types import is_numeric_dtype

    others = {str(name): dtype for name, dtype in frame.dtypes.items() if not is_numeric_dtype(dtype)}
    if others:
        raise TypeError(
            f"{what} must have columns of numbers, but {', '.join(f'{n!r} is {d}' for n, d in others.items())}; drop "
            f"them, or turn categories into columns of 0 and 1 by pandas.get_dummies, for all parts at once."
        )
    return frame.to_numpy(dtype=np.float64, na_value=np.nan)


def _of_series(series: Any, what: str) -> Any:
    """The values of a Series, with NaN where one is missing.

    Raises:
        TypeError: if they are not numbers.
    """
    from pandas.api.types import is_numeric_dtype

    if not is_numeric_dtype(series.dtype):
        raise TypeError(
            f"{what} must hold numbers, but its dtype is {series.dtype}; for classes, give codes from 0, such as "
            "series.astype('category').cat.codes, made for all parts at once so that they agree."
        )
    if series.isna().any():
        return series.to_numpy(dtype=np.float64, na_value=np.nan)
    return series.to_numpy(dtype=getattr(series.dtype, "numpy_dtype", None))


def _of_array(values: Any, what: str) -> Tensor:
    """A numpy array of any byte order and strides, writable or not.

    Raises:
        TypeError: if it does not hold numbers.
    """
    if values.dtype.kind not in "biufc":
        raise TypeError(
            f"{what} must hold numbers, but its dtype is {values.dtype}, such as {values.reshape(-1)[:1].tolist()}; "
            "convert it, for example by astype(float)."
        )
    dtype = np.dtype(np.float64) if values.dtype == np.longdouble else values.dtype.newbyteorder("=")
    if values.dtype.kind == "u" and values.dtype.itemsize > 1:
        dtype = np.dtype(np.int64)
    values = values.astype(dtype, copy=False)
    if not values.flags.writeable or any(stride < 0 for stride in values.strides):
        values = values.copy()
    return torch.from_numpy(values) if values.ndim else torch.tensor(values.item())
