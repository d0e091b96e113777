"""SE-ResNet-101 on ImageNet, 120 epochs.

python main.py --config configs/seresnet101.py --workdir runs/seresnet101

No published result is known for this recipe and this model.
On a laptop, whole but small: add --config.data.format=synthetic --config.data.num_examples=64 --config.batch_size=8
--config.eval_batch_size=8 --config.augment.size=64 --config.eval.size=64 --config.eval.resize=73 --config.epochs=6.
"""

from configs import common


def get_config():
    """The recipe."""
    config = common.get_config()
    config.model.name = 'seresnet101'
    config.epochs, config.batch_size = 120, 1024
    config.optimizer.learning_rate = 0.4
    config.augment.color_jitter = 0.4
    return config
