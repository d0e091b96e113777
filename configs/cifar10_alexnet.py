"""AlexNet on CIFAR-10, 100 epochs: made for its 32 pixels, or as for ImageNet on images enlarged to 224.

python main.py --config configs/cifar10_alexnet.py --workdir runs/cifar10_alexnet --config.data.path=DIR
python main.py --config configs/cifar10_alexnet.py:alexnet --workdir runs/cifar10_alexnet_224 --config.data.path=DIR

DIR holds train-*.parquet and test-*.parquet, the layout of the Hugging Face hub. alexnet_v1_cifar is that of NIPS 2012,
one tower. No published result is known for this recipe. On a laptop, in minutes, of alexnet_cifar:
--config.steps=200 --config.batch_size=32 --config.schedule.base_batch_size=32; and without the data
--config.data.format=digits --config.augment.flip=False.
"""

from configs import common

SIZES = {'alexnet_cifar': 32, 'alexnet_v1_cifar': 32, 'alexnet': 224}
MODELS = tuple(SIZES)


def get_config(model='alexnet_cifar'):
    """The recipe, of one of MODELS."""
    config = common.get_config()
    config.model.name, config.model.num_classes = common.checked(model, MODELS), 10
    config.data.format, config.data.path, config.data.eval_split = 'parquet', 'data/cifar10', 'test'
    size = SIZES[model]
    config.augment.size, config.augment.crop, config.augment.pad = size, 'pad', size // 8  # 4 pixels of 32
    config.eval.size, config.eval.resize = size, size
    config.normalize.mean, config.normalize.std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    config.epochs, config.batch_size = 100, 128
    config.schedule.base_batch_size = config.batch_size
    config.optimizer.learning_rate, config.optimizer.weight_decay = 0.01, 5e-4
    config.optimizer.nesterov = False
    config.schedule.name, config.schedule.warmup_epochs = 'multistep', 0
    config.schedule.milestones = (50, 75, 90)
    return config
