"""ZFNet with BatchNorm on ImageNet, 70 epochs.

python main.py --config configs/zfnet_bn.py --workdir runs/zfnet_bn

No published result is known for this recipe and this model. Published on mini-ImageNet, ten crops: 29.42% error. The
recipe is that of configs/zfnet.py.
On a laptop, whole but small: add --config.data.format=synthetic --config.data.num_examples=64 --config.batch_size=8
--config.eval_batch_size=8 --config.augment.size=64 --config.eval.size=64 --config.eval.resize=73 --config.epochs=1.
"""

from configs import common


def get_config():
    """The recipe."""
    config = common.get_config()
    config.model.name = 'zfnet_bn'
    config.epochs, config.batch_size = 70, 128
    config.optimizer.learning_rate, config.optimizer.weight_decay = 0.01, 5e-4
    config.optimizer.nesterov = False
    config.schedule.name, config.schedule.warmup_epochs = 'multistep', 0
    config.schedule.milestones = (25, 45, 60)
    return config
