"""VGG (arXiv 1409.1556): configurations A, B, D and E, without and with BatchNorm.

Differs from the paper in its start: He for convolutions, as in torchvision, not layers trained one after the other.
"""

from functools import partial

import flax.linen as nn

from imagenet_jax.models.network import Network
from imagenet_jax.models.plain import Classifier, Conv, Features, flatten, mean_answer

_WIDTHS = (64, 128, 256, 512, 512)


class VGG(Network):
    """Five stages of 3x3 convolutions, each ended by a pool, means over 7x7 windows, three dense layers.

    Attributes:
      depths: convolutions of each stage.
      batch_norm: a norm after each convolution, which keeps its bias.
      num_classes: 0 answers the 4096 features of the second hidden layer.
      dropout: after each hidden dense layer.
      fully_convolutional: where the last map is larger than 7x7, the dense layers answer every 7x7 pixels of it,
        and the mean of that is the answer, instead of pooling the map (arXiv 1312.6229).
    """
    depths: tuple[int, ...]
    batch_norm: bool
    dropout: float = 0.5
    fully_convolutional: bool = False

    @property
    def flattens(self):
        """Dense layer after a flattened map -> the map's (C, H, W)."""
        return {'classifier.0': (_WIDTHS[-1], 7, 7)}

    @nn.compact
    def __call__(self, images, train=False, features=False):
        layers = self.layers(train)
        convs = tuple(Conv(width, pool=2 if i == depth - 1 else 0)
                      for width, depth in zip(_WIDTHS, self.depths, strict=True) for i in range(depth))
        x, maps = Features(convs, layers, batch_norm=self.batch_norm, name='features')(images)
        x = flatten(x, 7, self.fully_convolutional)
        logits = Classifier(self.num_classes, layers, dropout_first=False, name='classifier')(x)
        logits = mean_answer(logits)
        return (logits, maps) if features else logits


_DEPTHS = {'vgg11': (1, 1, 2, 2, 2), 'vgg13': (2, 2, 2, 2, 2), 'vgg16': (2, 2, 3, 3, 3), 'vgg19': (2, 2, 4, 4, 4)}
MODELS = {
    **{name: partial(VGG, depths=depths, batch_norm=False) for name, depths in _DEPTHS.items()},
    **{f'{name}_bn': partial(VGG, depths=depths, batch_norm=True) for name, depths in _DEPTHS.items()},
}
