"""ResNet-50 on ImageNet, 120 epochs, 8 GPUs x 128; and every other model that this recipe trains.

python main.py --config configs/resnet50.py --workdir runs/resnet50
python main.py --config configs/resnet50.py:resnet101 --workdir runs/resnet101

Published with this recipe: 77.36 top-1 for resnet50, and a number each for resnet101, resnet50v2, resnet101v2,
resnext50_32x4d, resnest50, regnetx_040, regnety_040 and regnety_064, which python -m imagenet_jax models shows; for the
others of MODELS none with this recipe is known. Not reproduced here. On a laptop: configs/common.py.
"""

from configs import common

MODELS = (
    'resnet50', 'resnet18', 'resnet34', 'resnet101', 'resnet152', 'wide_resnet50_2',
    'resnet18d', 'resnet34d', 'resnet50d', 'resnet101d', 'resnet152d',
    'resnet18v2', 'resnet34v2', 'resnet50v2', 'resnet101v2', 'resnet152v2', 'resnext50_32x4d', 'resnext101_32x8d',
    'seresnet18', 'seresnet34', 'seresnet50', 'seresnet101', 'resnest50', 'resnest50d', 'resnest101e',
    'oct_resnet50', 'oct_resnet50v2',
    'regnetx_002', 'regnetx_004', 'regnetx_006', 'regnetx_008', 'regnetx_016', 'regnetx_032',
    'regnetx_040', 'regnetx_064', 'regnetx_080', 'regnetx_120', 'regnetx_160', 'regnetx_320',
    'regnety_002', 'regnety_004', 'regnety_006', 'regnety_008', 'regnety_016', 'regnety_032',
    'regnety_040', 'regnety_064', 'regnety_080', 'regnety_120', 'regnety_160', 'regnety_320',
)


def get_config(model='resnet50'):
    """The recipe, of one of MODELS."""
    config = common.get_config()
    config.model.name = common.checked(model, MODELS)
    config.epochs, config.batch_size = 120, 1024
    config.schedule.base_batch_size = config.batch_size
    config.optimizer.learning_rate = 0.4
    config.augment.color_jitter = 0.4
    return config
