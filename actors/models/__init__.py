"""Small families of image classifiers, for the recipes, the tests and the benchmarks.

One function per family; each gives a module from images (N, channels, H, W) in float to logits
(N, num_classes), and `width` and `depth` scale it. In every family `pool` gives the embedding (N, D) and
`head` is the linear layer that turns it into logits: both are good taps. No ReLU works in place: it would
overwrite what a tap before it has seen.
"""

from actors.models.convolutional import mobile_cnn, plain_cnn, small_resnet, tiny_cnn
from actors.models.perceptron import mlp
from actors.models.transformer import small_vit

__all__ = ["mlp", "mobile_cnn", "plain_cnn", "small_resnet", "small_vit", "tiny_cnn"]
