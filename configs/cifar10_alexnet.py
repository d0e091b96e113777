"""AlexNet on CIFAR-10, 100 epochs.

python main.py --config configs/cifar10_alexnet.py --workdir runs/cifar10_alexnet

DIR, below, holds train-*.parquet and test-*.parquet, the layout of the Hugging Face hub: --config.data.path=DIR. No
published result is known for this recipe. On a laptop, in a minute: --config.steps=20 --config.eval_epochs=0.
"""

from configs import common


def get_config():
    """The recipe."""
    config = common.get_config()
    config.model.name, config.model.num_classes = 'alexnet_cifar', 10
    config.data.format, config.data.path, config.data.eval_split = 'parquet', 'data/cifar10', 'test'
    config.augment.size, config.augment.crop = 32, 'pad'
    config.eval.size, config.eval.resize = 32, 32
    config.normalize.mean, config.normalize.std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    config.epochs, config.batch_size = 100, 128
    config.optimizer.learning_rate, config.optimizer.weight_decay = 0.01, 5e-4
    config.optimizer.nesterov = False
    config.schedule.name, config.schedule.warmup_epochs = 'multistep', 0
    config.schedule.milestones = (50, 75, 90)
    return config
