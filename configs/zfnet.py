"""ZFNet on ImageNet, 70 epochs; or with BatchNorm.

python main.py --config configs/zfnet.py --workdir runs/zfnet
python main.py --config configs/zfnet.py:zfnet_bn --workdir runs/zfnet_bn

Published (arXiv 1311.2901, table 2, one network, ten crops): 61.6 top-1, 83.5 top-5; not reproduced here. The paper
lowered the rate by eye and names no weight decay; the epochs of that are ours, and the decay is AlexNet's.
For zfnet_bn no result with this recipe is known. On a laptop: those of
configs/common.py and --config.augment.size=64 --config.eval.size=64
--config.eval.resize=64 --config.schedule.base_batch_size=16.
"""

from configs import common

MODELS = ('zfnet', 'zfnet_bn')


def get_config(model='zfnet'):
    """The recipe, of one of MODELS."""
    config = common.get_config()
    config.model.name = common.checked(model, MODELS)
    config.epochs, config.batch_size = 70, 128
    config.schedule.base_batch_size = config.batch_size
    config.optimizer.learning_rate, config.optimizer.weight_decay = 0.01, 5e-4
    config.optimizer.nesterov = False
    config.schedule.name, config.schedule.warmup_epochs = 'multistep', 0
    config.schedule.milestones = (25, 45, 60)
    return config
