"""ResNet-32 on CIFAR-10 by the recipe of its paper, 64,000 steps; plain, with cutout, or with AutoAugment.

python main.py --config configs/cifar10_paper.py --workdir runs/resnet32 --config.data.path=DIR
python main.py --config configs/cifar10_paper.py:autoaugment --workdir runs/resnet32_aa --config.data.path=DIR

DIR holds train-*.parquet and test-*.parquet, the layout of the Hugging Face hub. Published: 7.51% error (arXiv
1512.03385, table 6), 7.37% error with AutoAugment. Not reproduced here. Another depth:
--config.model.name=resnet56_cifar. On a laptop, in minutes: --config.steps=200 --config.batch_size=64; and without
the data --config.data.format=digits --config.augment.flip=False.
"""

from configs import cifar10_resnet20, common

VARIANTS = {
    'base': {},
    'cutout': {'erase.name': 'cutout', 'erase.side': 16},  # arXiv 1708.04552
    'autoaugment': {'policy.name': 'autoaugment', 'policy.dataset': 'cifar10'},
}


def get_config(variant='base'):
    """The recipe, by one of VARIANTS."""
    config = cifar10_resnet20.get_config('resnet32_cifar')
    config.steps = 64000
    config.optimizer.nesterov = False
    config.schedule.name, config.schedule.warmup_epochs = 'multistep', 0
    config.schedule.milestones, config.schedule.factor = (81.92, 122.88), 0.1  # 32,000 and 48,000 steps of 128 images
    return common.varied(config, VARIANTS, variant)
