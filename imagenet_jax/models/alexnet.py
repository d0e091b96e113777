"""AlexNet: the two towers of NIPS 2012 (alexnet_v1), its successors (arXiv 1404.5997), and forms for 32 pixels."""

import itertools
from functools import partial

import flax.linen as nn

from imagenet_jax.errors import UserError
from imagenet_jax.models.layers import dense_init, he_init
from imagenet_jax.models.network import Network
from imagenet_jax.models.plain import Classifier, Conv, Features, flatten, mean_answer


class AlexNet(Network):
    """Five convolutions, means over 6x6 windows (at 224 pixels there is nothing to average), three dense layers.

    Attributes:
      convs: the convolutions.
      batch_norm: a norm before each activation, and no bias there.
      paper_init: N(0, .01) for every kernel and bias 1 in the hidden dense layers, as in the paper; else He's.
      num_classes: 0 answers the 4096 features of the second hidden layer.
      dropout: before (each of) the hidden dense layers.
      groups: of the convolutions of the two towers; 1 is a single tower.
      fully_convolutional: where the last map is larger than 6x6, the dense layers answer every 6x6 pixels of it,
        and the mean of that is the answer, instead of pooling the map (arXiv 1312.6229).
    """
    convs: tuple[Conv, ...]
    batch_norm: bool
    paper_init: bool
    dropout: float = 0.5
    groups: int = 2
    fully_convolutional: bool = False

    def __post_init__(self):
        widths = [c.features for pair in itertools.pairwise(self.convs) if pair[1].split for c in pair]
        if self.groups < 1 or any(width % self.groups for width in widths):
            raise UserError(f'model.groups={self.groups} must divide the widths of its convolutions, {widths}')
        super().__post_init__()

    @property
    def flattens(self):
        """Dense layer after a flattened map -> the map's (C, H, W)."""
        return {'classifier.1': (self.convs[-1].features, 6, 6)}

    @nn.compact
    def __call__(self, images, train=False, features=False):
        layers = self.layers(train)
        init, bias = (dense_init, 1.0) if self.paper_init else (he_init(), 0.0)
        shared = {'use_bias': not self.batch_norm, 'batch_norm': self.batch_norm}
        x, maps = Features(self.convs, layers, self.groups, init=init, **shared, name='features')(images)
        x = flatten(x, 6, self.fully_convolutional)
        logits = Classifier(self.num_classes, layers, dropout_first=True, bias=bias, **shared,
                            name='classifier')(x)
        logits = mean_answer(logits)
        return (logits, maps) if features else logits


class CifarAlexNet(AlexNet):
    """AlexNet for ten classes of 32-pixel images."""
    num_classes: int = 10


def _convs(widths, lrn=(), biases=(0.0,) * 5, split=False, small=False):
    """AlexNet's five; `lrn` numbers, from 1, those that LRN follows, `small` is the first one for 32-pixel images."""
    first = {'kernel': 5, 'padding': 0} if small else {'kernel': 11, 'stride': 4, 'padding': 2}
    shapes = first, {'kernel': 5, 'padding': 2}, {}, {}, {}
    return tuple(Conv(widths[i], **shape, split=split and i in (1, 3, 4), bias=biases[i], lrn=i + 1 in lrn,
                      pool=3 if i in (0, 1, 4) else 0) for i, shape in enumerate(shapes))


_TOWERS, _ONE_WEIRD_TRICK, _TORCHVISION = (96, 256, 384, 384, 256), (64, 192, 384, 384, 256), (64, 192, 384, 256, 256)
_BIASES = (0.0, 1.0, 0.0, 1.0, 1.0)
_plain = partial(AlexNet, batch_norm=False, paper_init=False, groups=1)
_paper = partial(AlexNet, paper_init=True)

MODELS = {
    'alexnet_v1': partial(_paper, convs=_convs(_TOWERS, (1, 2), _BIASES, split=True), batch_norm=False),
    'alexnet_bn': partial(_paper, convs=_convs(_TOWERS, split=True), batch_norm=True),
    'alexnet_v2': partial(_plain, convs=_convs(_ONE_WEIRD_TRICK)),
    'alexnet': partial(_plain, convs=_convs(_TORCHVISION)),
    'alexnet_cifar': partial(CifarAlexNet, convs=_convs(_TORCHVISION, small=True), batch_norm=False, paper_init=False,
                             groups=1),
    'alexnet_v1_cifar': partial(CifarAlexNet, convs=_convs(_TOWERS, (1, 2, 5), _BIASES, small=True), batch_norm=False,
                                paper_init=True, groups=1),
}
