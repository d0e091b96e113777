"""ResNet-32 on CIFAR-10: configs/cifar10_resnet20.py with another first model, for scripts that know it by this name.

python main.py --config configs/cifar10_resnet32.py --workdir runs/cifar10_resnet32 --config.data.path=DIR

What is known of the recipe stands there.
"""

from configs import cifar10_resnet20

MODELS = ('resnet32_cifar', *(model for model in cifar10_resnet20.MODELS if model != 'resnet32_cifar'))


def get_config(model='resnet32_cifar'):
    """The recipe, of one of MODELS."""
    return cifar10_resnet20.get_config(model)
