"""ResNet-32 on CIFAR-10, 200 epochs.

python main.py --config configs/cifar10_resnet32.py --workdir runs/cifar10_resnet32 --config.data.path=DIR

DIR holds train-*.parquet and test-*.parquet, the layout of the Hugging Face hub. Published (arXiv 1512.03385, table 6):
7.51% test error; the schedule here is a cosine, not the paper's steps. On a laptop, in a minute: --config.steps=100
--config.eval_epochs=0 --config.schedule.warmup_epochs=0.
"""

from configs import common


def get_config():
    """The recipe."""
    config = common.get_config()
    config.model.name, config.model.num_classes = 'resnet32_cifar', 10
    config.data.format, config.data.path, config.data.eval_split = 'parquet', 'data/cifar10', 'test'
    config.augment.size, config.augment.crop = 32, 'pad'
    config.eval.size, config.eval.resize = 32, 32
    config.normalize.mean, config.normalize.std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    config.epochs, config.batch_size = 200, 128
    config.optimizer.learning_rate = 0.1
    return config
