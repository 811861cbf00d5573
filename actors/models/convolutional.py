"""Convolutional families: H and W are free, as the pooling is adaptive.

Taps: `stem`, `stage1`, `stage2`, `stage3` (N, C, h, w), `pool` (N, C), `head`. The classes are the blocks
that `nn.Sequential` cannot express. Weights lie channels last, with which a CPU trains up to 1.5 times as fast.
"""

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from actors.models.depth import require_depth


class ResidualBlock(nn.Module):
    """relu(bn(conv(relu(bn(conv(x))))) + shortcut(x)): (N, C, H, W) -> (N, out, H / stride, W / stride)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        same_shape = in_channels == out_channels and stride == 1
        self.body = nn.Sequential(
            conv_bn_relu(in_channels, out_channels, stride=stride),
            *conv_bn(out_channels, out_channels),
        )
        self.shortcut = (
            nn.Identity()
            if same_shape
            else nn.Sequential(*conv_bn(in_channels, out_channels, kernel_size=1, stride=stride))
        )

    def forward(self, inputs: Tensor) -> Tensor:
        return F.relu(self.body(inputs) + self.shortcut(inputs))


class InvertedResidual(nn.Module):
    """1x1 widen, 3x3 depthwise, 1x1 linear narrow; a shortcut where the shape stays."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.is_residual = in_channels == out_channels and stride == 1
        self.body = nn.Sequential(
            conv_bn_relu(in_channels, hidden, kernel_size=1),
            conv_bn_relu(hidden, hidden, stride=stride, groups=hidden),
            *conv_bn(hidden, out_channels, kernel_size=1),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = self.body(inputs)
        return inputs + outputs if self.is_residual else outputs


def small_resnet(
    *, num_classes: int = 10, channels: int = 1, width: int = 16, depth: int = 1, stem_stride: int = 1
) -> nn.Module:
    """Residual network for small images (He, Zhang, Ren, Sun 2015, arXiv 1512.03385, section 4.2).

    Three stages of `depth` blocks with width, 2 width and 4 width channels: 6 * depth + 2 layers, so depth 3
    is ResNet-20 (with projection shortcuts). `stem_stride` 2 halves the resolution: a quarter of the work.
    """

    def stage(in_channels: int, out_channels: int, stride: int) -> nn.Module:
        first = ResidualBlock(in_channels, out_channels, stride)
        return nn.Sequential(first, *(ResidualBlock(out_channels, out_channels, 1) for _ in range(depth - 1)))

    return staged_cnn(stage, num_classes, channels, width, depth, stem_stride)


def mobile_cnn(
    *,
    num_classes: int = 10,
    channels: int = 1,
    width: int = 16,
    depth: int = 1,
    expansion: int = 4,
    stem_stride: int = 2,
) -> nn.Module:
    """Inverted residuals with depthwise convolutions, MobileNetV2's (Sandler et al. 2018, arXiv 1801.04381).

    Three stages of `depth` blocks with width, 2 width and 4 width channels; inside a block `expansion` times
    as many. ReLU6 is plain ReLU here, as nothing is quantised.
    """

    def stage(in_channels: int, out_channels: int, stride: int) -> nn.Module:
        first = InvertedResidual(in_channels, out_channels, stride, expansion)
        return nn.Sequential(
            first, *(InvertedResidual(out_channels, out_channels, 1, expansion) for _ in range(depth - 1))
        )

    return staged_cnn(stage, num_classes, channels, width, depth, stem_stride)


def plain_cnn(
    *, num_classes: int = 10, channels: int = 1, width: int = 16, depth: int = 1, stem_stride: int = 2
) -> nn.Module:
    """Stacked 3x3 convolutions without shortcuts (Simonyan, Zisserman 2014, arXiv 1409.1556), with BatchNorm.

    Three stages of `depth` convolutions with width, 2 width and 4 width channels; the first of stage 2 and of
    stage 3 halves the resolution by its stride.
    """

    def stage(in_channels: int, out_channels: int, stride: int) -> nn.Module:
        first = conv_bn_relu(in_channels, out_channels, stride=stride)
        return nn.Sequential(first, *(conv_bn_relu(out_channels, out_channels) for _ in range(depth - 1)))

    return staged_cnn(stage, num_classes, channels, width, depth, stem_stride)


def tiny_cnn(*, num_classes: int = 10, channels: int = 1, width: int = 16) -> nn.Module:
    """The student: an all-convolutional net (Springenberg et al. 2014, arXiv 1412.6806) of 14,458 parameters.

    Taps: `stage1` (N, width, H/2, W/2), `stage2` and `stage3` (N, 2 width, H/4, W/4), `pool` (N, 2 width).
    """
    parts: OrderedDict[str, nn.Module] = OrderedDict(
        stage1=conv_bn_relu(channels, width, stride=2),
        stage2=conv_bn_relu(width, 2 * width, stride=2),
        stage3=conv_bn_relu(2 * width, 2 * width),
        pool=global_pool(),
        head=nn.Linear(2 * width, num_classes),
    )
    return nn.Sequential(parts).to(memory_format=torch.channels_last)


def staged_cnn(
    stage: Callable[[int, int, int], nn.Module],
    num_classes: int,
    channels: int,
    width: int,
    depth: int,
    stem_stride: int,
) -> nn.Module:
    """Stem, three stages made by `stage(in_channels, out_channels, stride)`, pool and head."""
    require_depth(depth)
    parts: OrderedDict[str, nn.Module] = OrderedDict(
        stem=conv_bn_relu(channels, width, stride=stem_stride),
        stage1=stage(width, width, 1),
        stage2=stage(width, 2 * width, 2),
        stage3=stage(2 * width, 4 * width, 2),
        pool=global_pool(),
        head=nn.Linear(4 * width, num_classes),
    )
    return nn.Sequential(parts).to(memory_format=torch.channels_last)


def conv_bn(
    in_channels: int, out_channels: int, *, kernel_size: int = 3, stride: int = 1, groups: int = 1
) -> tuple[nn.Module, nn.Module]:
    """A convolution without bias that keeps H and W (but for the stride), and its BatchNorm."""
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv, nn.BatchNorm2d(out_channels)


def conv_bn_relu(
    in_channels: int, out_channels: int, *, kernel_size: int = 3, stride: int = 1, groups: int = 1
) -> nn.Module:
    """Convolution, BatchNorm, ReLU; tap `<name>.1` for what stands before the ReLU."""
    conv, norm = conv_bn(in_channels, out_channels, kernel_size=kernel_size, stride=stride, groups=groups)
    return nn.Sequential(conv, norm, nn.ReLU())


def global_pool() -> nn.Module:
    """(N, C, H, W) -> (N, C), the mean over the image."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
