"""ResNet-9 on CIFAR-10 in 24 epochs, for one GPU: seconds, not hours.

python main.py --config configs/cifar10_fast.py --workdir runs/cifar10_fast --config.data.path=DIR

DIR holds train-*.parquet and test-*.parquet, the layout of the Hugging Face hub. Published: 94.0 top-1 for
resnet9_cifar, in 79 seconds on one V100 (David Page, "How to train your ResNet"). Not reproduced here. On a laptop, in
minutes: --config.steps=100 --config.batch_size=64 --config.schedule.warmup_epochs=1; and without the data
--config.data.format=digits --config.augment.flip=False.
"""

from configs import common

MODELS = ('resnet9_cifar',)


def get_config(model='resnet9_cifar'):
    """The recipe, of one of MODELS."""
    config = common.get_config()
    config.model.name, config.model.num_classes = common.checked(model, MODELS), 10
    config.data.format, config.data.path, config.data.eval_split = 'parquet', 'data/cifar10', 'test'
    config.augment.size, config.augment.crop = 32, 'pad'
    config.erase.name, config.erase.side = 'cutout', 8
    config.eval.size, config.eval.resize = 32, 32
    config.normalize.mean, config.normalize.std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    config.epochs, config.batch_size, config.eval_batch_size = 24, 512, 512
    config.schedule.base_batch_size = config.batch_size
    config.optimizer.learning_rate, config.optimizer.weight_decay = 0.4, 5e-4
    config.schedule.name, config.schedule.warmup_epochs = 'linear', 5
    return config
