"""The precision that losses compute in: float32 at least, whatever the input and the autocast."""

import torch
from torch import Tensor


def at_least_float32(tensor: Tensor) -> Tensor:
    """Half precision becomes float32; float32 and float64 stay."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def full_precision(tensor: Tensor) -> torch.autocast:
    """Switch autocast off around matrix products, which it would take in half precision."""
    return torch.autocast(tensor.device.type, enabled=False)
