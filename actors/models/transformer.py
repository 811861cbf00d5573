"""A small vision transformer; its classes are the parts that `nn.Sequential` cannot express."""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from actors.models.depth import require_depth


class PatchEmbedding(nn.Module):
    """(N, channels, size, size) -> tokens (N, T, width) with their positions; a class token is token 0."""

    def __init__(self, channels: int, size: int, patch: int, width: int, class_token: bool) -> None:
        super().__init__()
        num_tokens = (size // patch) ** 2 + class_token
        self.size = size
        self.project = nn.Conv2d(channels, width, kernel_size=patch, stride=patch)
        # As large as the patches: with 0.02 a short training sees a bag of them (measured, 2 points less).
        self.position = nn.Parameter(torch.randn(1, num_tokens, width) * 0.5)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width)) if class_token else None

    def forward(self, inputs: Tensor) -> Tensor:
        if inputs.shape[-2:] != (self.size, self.size):
            raise ValueError(
                f"small_vit: built for images of {self.size}x{self.size}, got {tuple(inputs.shape[-2:])}; "
                "set the model's size, or the size of its input, so that they agree"
            )
        tokens = self.project(inputs).flatten(2).transpose(1, 2)
        if self.class_token is not None:
            tokens = torch.cat([self.class_token.expand(len(tokens), -1, -1), tokens], dim=1)
        return tokens + self.position


class SelfAttention(nn.Module):
    """Multi-head self-attention over (N, T, width).

    Not nn.MultiheadAttention: that takes another kernel where no gradient is wanted, whose last bits differ.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        rows, length, width = tokens.shape
        qkv = self.qkv(tokens).view(rows, length, 3, self.num_heads, width // self.num_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.project(mixed.transpose(1, 2).reshape(rows, length, width))


class TransformerBlock(nn.Module):
    """Pre-norm: x + attention(norm(x)), then x + mlp(norm(x)); (N, T, width) -> (N, T, width)."""

    def __init__(self, width: int, num_heads: int, expansion: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = SelfAttention(width, num_heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, expansion * width),
            nn.GELU(),
            nn.Linear(expansion * width, width),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attention(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens))


class TokenPool(nn.Module):
    """(N, T, width) -> (N, width): token 0, or the mean over the tokens."""

    def __init__(self, class_token: bool) -> None:
        super().__init__()
        self.class_token = class_token

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens[:, 0] if self.class_token else tokens.mean(dim=1)


def small_vit(
    *,
    num_classes: int = 10,
    channels: int = 1,
    size: int = 28,
    patch: int = 4,
    width: int = 64,
    depth: int = 4,
    num_heads: int = 4,
    expansion: int = 2,
    class_token: bool = False,
) -> nn.Module:
    """Vision transformer (Dosovitskiy et al. 2020, arXiv 2010.11929): pre-norm and learned positions.

    Taps: `stem`, `blocks.0` ... and `norm` give tokens (N, T, width) with T = (size / patch)^2, one more with
    a class token (token 0); `pool` gives that token, else the mean of all (N, width).
    Raises ValueError where `patch` does not divide `size`, or `num_heads` not `width`, or an image is not
    size x size.
    """
    require_depth(depth)
    if size % patch:
        raise ValueError(f"small_vit: patch must divide size {size}, got patch {patch}; take one of its divisors")
    if width % num_heads:
        raise ValueError(f"small_vit: num_heads must divide width {width}, got {num_heads}; take one of its divisors")
    parts: OrderedDict[str, nn.Module] = OrderedDict(
        stem=PatchEmbedding(channels, size, patch, width, class_token),
        blocks=nn.Sequential(*(TransformerBlock(width, num_heads, expansion) for _ in range(depth))),
        norm=nn.LayerNorm(width),
        pool=TokenPool(class_token),
        head=nn.Linear(width, num_classes),
    )
    return nn.Sequential(parts)
