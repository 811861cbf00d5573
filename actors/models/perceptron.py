"""The multi-layer perceptron."""

from collections import OrderedDict

from torch import nn

from actors.models.depth import require_depth


def mlp(*, num_classes: int = 10, channels: int = 1, size: int = 8, width: int = 64, depth: int = 2) -> nn.Module:
    """`depth` hidden layers of `width` ReLU units over the flattened image: for 8x8 digits and for tests.

    Taps: `stem` (N, width), the first hidden layer; `blocks.0` ... the others; `pool` (N, width), the last.
    """
    require_depth(depth)
    parts: OrderedDict[str, nn.Module] = OrderedDict(
        stem=nn.Sequential(nn.Flatten(), nn.Linear(channels * size * size, width), nn.ReLU()),
        blocks=nn.Sequential(*(nn.Sequential(nn.Linear(width, width), nn.ReLU()) for _ in range(depth - 1))),
        pool=nn.Identity(),
        head=nn.Linear(width, num_classes),
    )
    return nn.Sequential(parts)
