"""ResNet-8 on CIFAR-10, 200 epochs: configs/cifar10_resnet20.py with the smallest of the family, one block a stage.

python main.py --config configs/cifar10_resnet8.py --workdir runs/cifar10_resnet8 --config.data.path=DIR

Not in the paper; for first tries, and where seconds count.
"""

from configs import cifar10_resnet20


def get_config():
    """The recipe."""
    config = cifar10_resnet20.get_config()
    config.model.name = 'resnet8_cifar'
    return config
