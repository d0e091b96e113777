"""ResNet-20 on CIFAR-10, 200 epochs; or another depth.

python main.py --config configs/cifar10_resnet20.py --workdir runs/cifar10_resnet20 --config.data.path=DIR
python main.py --config configs/cifar10_resnet20.py:resnet56_cifar --workdir runs/resnet56 --config.data.path=DIR

DIR holds train-*.parquet and test-*.parquet, the layout of the Hugging Face hub. Published (arXiv 1512.03385, table 6):
8.75% error for resnet20_cifar, 7.51% error for 32, 7.17% error for 44, 6.97% error for 56, 6.43% error for 110; not
reproduced here: the schedule is a cosine, not the paper's steps. resnet8_cifar, one block a stage, is not in the paper;
for first tries, and where seconds count. On a laptop, in minutes: --config.steps=200 --config.batch_size=64
--config.schedule.warmup_epochs=1; and without the data --config.data.format=digits --config.augment.flip=False.
"""

from configs import common

MODELS = ('resnet20_cifar', 'resnet8_cifar', 'resnet32_cifar', 'resnet44_cifar', 'resnet56_cifar', 'resnet110_cifar')


def get_config(model='resnet20_cifar'):
    """The recipe, of one of MODELS."""
    config = common.get_config()
    config.model.name, config.model.num_classes = common.checked(model, MODELS), 10
    config.data.format, config.data.path, config.data.eval_split = 'parquet', 'data/cifar10', 'test'
    config.augment.size, config.augment.crop = 32, 'pad'
    config.eval.size, config.eval.resize = 32, 32
    config.normalize.mean, config.normalize.std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    config.epochs, config.batch_size = 200, 128
    config.schedule.base_batch_size = config.batch_size
    config.optimizer.learning_rate = 0.1
    return config
