"""AlexNet on CIFAR-100, 100 epochs: configs/cifar10_alexnet.py with the official files of another data set.

python main.py --config configs/cifar100_alexnet.py --workdir runs/cifar100_alexnet --config.data.path=DIR
python main.py --config configs/cifar100_alexnet.py:alexnet --workdir runs/cifar100_alexnet_224 --config.data.path=DIR

DIR holds cifar-100-python/, as in the official archive. No published result is known for this recipe. On a laptop: as
configs/cifar10_alexnet.py.
"""

from configs import cifar10_alexnet

MODELS = cifar10_alexnet.MODELS


def get_config(model='alexnet_cifar'):
    """The recipe, of one of MODELS."""
    config = cifar10_alexnet.get_config(model)
    config.model.num_classes = 100
    config.data.format, config.data.path = 'cifar', 'data/cifar100'
    config.normalize.mean, config.normalize.std = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)
    return config
