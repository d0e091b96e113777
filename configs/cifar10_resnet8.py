"""ResNet-8 on CIFAR-10: configs/cifar10_resnet20.py with another first model, for scripts that know it by this name.

python main.py --config configs/cifar10_resnet8.py --workdir runs/cifar10_resnet8 --config.data.path=DIR

What is known of the recipe stands there.
"""

from configs import cifar10_resnet20

MODELS = ('resnet8_cifar', *(model for model in cifar10_resnet20.MODELS if model != 'resnet8_cifar'))


def get_config(model='resnet8_cifar'):
    """The recipe, of one of MODELS."""
    return cifar10_resnet20.get_config(model)
