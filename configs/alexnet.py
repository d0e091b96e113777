"""AlexNet, torchvision's form, on ImageNet, 90 epochs.

python main.py --config configs/alexnet.py --workdir runs/alexnet

Published, with torchvision's recipe, which this follows: 56.52 top-1; not reproduced here.
On a laptop: those of configs/common.py and --config.augment.size=64 --config.eval.size=64
--config.eval.resize=64 --config.schedule.base_batch_size=16.
"""

from configs import common

MODELS = ('alexnet',)


def get_config(model='alexnet'):
    """The recipe, of one of MODELS."""
    config = common.get_config()
    config.model.name = common.checked(model, MODELS)
    config.epochs, config.batch_size = 90, 256
    config.schedule.base_batch_size = config.batch_size
    config.optimizer.learning_rate, config.optimizer.weight_decay = 0.01, 1e-4
    config.optimizer.nesterov = False
    config.schedule.name, config.schedule.warmup_epochs = 'multistep', 0
    config.schedule.milestones = (30, 60)
    return config
