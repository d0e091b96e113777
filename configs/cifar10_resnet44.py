"""ResNet-44 on CIFAR-10, 200 epochs: configs/cifar10_resnet20.py with a deeper model.

python main.py --config configs/cifar10_resnet44.py --workdir runs/cifar10_resnet44 --config.data.path=DIR

Published (arXiv 1512.03385, table 6), with the paper's steps instead of a cosine: 7.17% error; not reproduced here.
"""

from configs import cifar10_resnet20


def get_config():
    """The recipe."""
    config = cifar10_resnet20.get_config()
    config.model.name = 'resnet44_cifar'
    return config
