"""ResNet-18 on ImageNet: configs/resnet50.py with another first model, for scripts that know it by this name.

python main.py --config configs/resnet18.py --workdir runs/resnet18

What is known of the recipe stands there.
"""

from configs import resnet50

MODELS = ('resnet18', *(model for model in resnet50.MODELS if model != 'resnet18'))


def get_config(model='resnet18'):
    """The recipe, of one of MODELS."""
    return resnet50.get_config(model)
