"""AlexNet as for ImageNet on CIFAR-100, its images enlarged to 224 pixels: configs/cifar100_alexnet.py otherwise.

python main.py --config configs/cifar100_alexnet_224.py --workdir runs/cifar100_alexnet_224 --config.data.path=DIR

The padding is what 4 pixels of 32 are. No published result is known for this recipe. On a laptop, in a minute:
--config.steps=10 --config.eval_epochs=0 --config.batch_size=16.
"""

from configs import cifar100_alexnet


def get_config():
    """The recipe."""
    config = cifar100_alexnet.get_config()
    config.model.name = 'alexnet'
    config.augment.size, config.augment.pad = 224, 28
    config.eval.size, config.eval.resize = 224, 224
    return config
