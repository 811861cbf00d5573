"""Checks of shapes that the losses share; a ValueError says *argument, expected, got, way out*."""

from torch import Tensor


def require_logits(student_logits: Tensor, teacher_logits: Tensor) -> None:
    """Both (N, C), over the same classes."""
    _require_matrix("student_logits", student_logits)
    require_same_shape(
        "teach the student the teacher's classes, or map the teacher's onto them",
        student_logits=student_logits,
        teacher_logits=teacher_logits,
    )


def require_hard_labels(student_logits: Tensor, labels: Tensor) -> None:
    """Logits (N, C) and one class number for each of the N rows."""
    _require_matrix("student_logits", student_logits)
    way_out = "give one class number per row"
    if labels.is_floating_point():
        raise ValueError(f"labels: expected class numbers (int64), got {labels.dtype}; {way_out}")
    if labels.shape != student_logits.shape[:1]:
        expected = f"({len(student_logits)},) for student_logits {tuple(student_logits.shape)}"
        raise ValueError(_text("labels", expected, labels, way_out))


def require_same_shape(way_out: str, **tensors: Tensor) -> None:
    """Every tensor is as large as the first; the names are those of the loss's arguments."""
    (first, pattern), *others = tensors.items()
    for name, tensor in others:
        if tensor.shape != pattern.shape:
            raise ValueError(_text(name, f"{tuple(pattern.shape)} as {first}", tensor, way_out))


def require_maps(**tensors: Tensor) -> None:
    """Every tensor is (N, C, H, W)."""
    for name, tensor in tensors.items():
        if tensor.dim() != 4:
            raise ValueError(_text(name, "(N, C, H, W)", tensor, "tap a convolutional feature"))


def require_same_space(**tensors: Tensor) -> None:
    """Every tensor is (N, C, H, W), with the first one's N, H and W."""
    (first, pattern), *others = tensors.items()
    require_maps(**tensors)
    for name, tensor in others:
        if tensor.shape[:1] + tensor.shape[2:] != pattern.shape[:1] + pattern.shape[2:]:
            expected = f"N, H and W of {first} {tuple(pattern.shape)}"
            raise ValueError(_text(name, expected, tensor, "tap layers of one size, or resize one by a connector"))


def require_same_channels(**tensors: Tensor) -> None:
    """Every tensor is (N, C, H, W), with the first one's N and C."""
    (first, pattern), *others = tensors.items()
    require_maps(**tensors)
    for name, tensor in others:
        if tensor.shape[:2] != pattern.shape[:2]:
            expected = f"N and C of {first} {tuple(pattern.shape)}"
            raise ValueError(_text(name, expected, tensor, "tap layers of as many channels, or fit one by a connector"))


def require_same_batch(**tensors: Tensor) -> None:
    """Every tensor is (N, ...), with the first one's N."""
    (first, pattern), *others = tensors.items()
    for name, tensor in tensors.items():
        if tensor.dim() < 2:
            raise ValueError(_text(name, "(N, ...) of two dimensions at least", tensor, "keep the batch dimension"))
    for name, tensor in others:
        if len(tensor) != len(pattern):
            expected = f"N of {first} {tuple(pattern.shape)}"
            raise ValueError(_text(name, expected, tensor, "give both the same rows"))


def _require_matrix(name: str, tensor: Tensor) -> None:
    if tensor.dim() != 2:
        raise ValueError(_text(name, "(N, C)", tensor, "flatten further dimensions into rows"))


def _text(name: str, expected: str, got: Tensor, way_out: str) -> str:
    return f"{name}: expected shape {expected}, got {tuple(got.shape)}; {way_out}"
