"""The device that a config names."""

import torch


def require_device(name: object, dtype: torch.dtype) -> torch.device:
    """The device of this name, which torch must have.

    Args:
        name: such as "cpu", "cuda", "cuda:1" or "mps".
        dtype: of the parameters.

    Raises:
        ValueError: if there is no such device here, or it has no such numbers.
    """
    try:
        device = torch.device(str(name))
    except RuntimeError:
        raise ValueError(f"device must be cpu, cuda, one GPU such as cuda:1, or mps, but it is {name}.") from None
    if device.type == "cuda":
        _require_gpu(device)
    elif device.type == "mps":
        _require_mps(dtype)
    elif device.type != "cpu":
        raise ValueError(f"device={name} is not supported; use cpu, cuda, one GPU such as cuda:1, or mps.")
    return device


def _require_gpu(device: torch.device) -> None:
    if not torch.cuda.is_available():
        raise ValueError(f"device={device} needs a GPU, but torch {torch.__version__} finds none; use device=cpu.")
    count = torch.cuda.device_count()
    if device.index is not None and device.index >= count:
        known = "cuda:0" if count == 1 else f"cuda:0 to cuda:{count - 1}"
        raise ValueError(
            f"device={device} is not here: torch finds {count}, {known}. CUDA_VISIBLE_DEVICES hides others."
        )


def _require_mps(dtype: torch.dtype) -> None:
    if not torch.backends.mps.is_available():
        raise ValueError(
            f"device=mps needs a Mac with a GPU, but torch {torch.__version__} finds none; use device=cpu."
        )
    if dtype == torch.float64:
        raise ValueError("device=mps has no float64; use dtype=float32, which is not tested there, or device=cpu.")
