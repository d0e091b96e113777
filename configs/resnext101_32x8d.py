"""ResNeXt-101 32x8d on ImageNet, 120 epochs.

python main.py --config configs/resnext101_32x8d.py --workdir runs/resnext101_32x8d

No published result is known for this recipe and this model.
On a laptop, whole but small: add --config.data.format=synthetic --config.data.num_examples=64 --config.batch_size=8
--config.eval_batch_size=8 --config.augment.size=64 --config.eval.size=64 --config.eval.resize=73 --config.epochs=6.
"""

from configs import common


def get_config():
    """The recipe."""
    config = common.get_config()
    config.model.name = 'resnext101_32x8d'
    config.epochs, config.batch_size = 120, 1024
    config.optimizer.learning_rate = 0.4
    config.augment.color_jitter = 0.4
    return config
