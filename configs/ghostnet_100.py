"""GhostNet on ImageNet, 360 epochs, 8 GPUs x 400.

python main.py --config configs/ghostnet_100.py --workdir runs/ghostnet_100

No published result is known for this recipe and this model.
On a laptop, whole but small: add --config.data.format=synthetic --config.data.num_examples=64 --config.batch_size=8
--config.eval_batch_size=8 --config.augment.size=64 --config.eval.size=64 --config.eval.resize=73 --config.epochs=6
--config.optimizer.learning_rate=0.02.
"""

from configs import common


def get_config():
    """The recipe."""
    config = common.get_config()
    config.model.name = 'ghostnet_100'
    config.epochs, config.batch_size = 360, 3200
    config.loss.smoothing = 0.1
    config.optimizer.learning_rate, config.optimizer.weight_decay = 2.6, 3e-5
    config.optimizer.decay_bias_and_norm = False
    config.augment.color_jitter = 0.4
    return config
