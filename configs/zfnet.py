"""ZFNet on ImageNet, 70 epochs.

python main.py --config configs/zfnet.py --workdir runs/zfnet

Published (arXiv 1311.2901, table 2, one network, ten crops): 61.6 top-1, 83.5 top-5; not reproduced here. The paper
lowered the rate by eye and names no weight decay; the epochs of that are ours, and the decay is AlexNet's.
On a laptop, whole but small: add --config.data.format=synthetic --config.data.num_examples=64 --config.batch_size=8
--config.eval_batch_size=8 --config.augment.size=64 --config.eval.size=64 --config.eval.resize=73 --config.epochs=1.
"""

from configs import common


def get_config():
    """The recipe."""
    config = common.get_config()
    config.model.name = 'zfnet'
    config.epochs, config.batch_size = 70, 128
    config.optimizer.learning_rate, config.optimizer.weight_decay = 0.01, 5e-4
    config.optimizer.nesterov = False
    config.schedule.name, config.schedule.warmup_epochs = 'multistep', 0
    config.schedule.milestones = (25, 45, 60)
    return config
