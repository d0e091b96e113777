"""VGG-16 on ImageNet, 70 epochs; or another depth, or with BatchNorm.

python main.py --config configs/vgg16.py --workdir runs/vgg16
python main.py --config configs/vgg16.py:vgg19_bn --workdir runs/vgg19_bn

Published with this recipe: 69.21 top-1, 88.67 top-5 for vgg16 (with torchvision's: 71.59 top-1), 70.04 top-1, 89.30
top-5 for vgg19; for the others of MODELS none is known. Not reproduced here. Batch and number of epochs are ours:
nobody names them. On a laptop: those of configs/common.py and
--config.schedule.base_batch_size=16.
"""

from configs import common

MODELS = ('vgg16', 'vgg11', 'vgg13', 'vgg19', 'vgg11_bn', 'vgg13_bn', 'vgg16_bn', 'vgg19_bn')


def get_config(model='vgg16'):
    """The recipe, of one of MODELS."""
    config = common.get_config()
    config.model.name = common.checked(model, MODELS)
    config.epochs, config.batch_size = 70, 128
    config.schedule.base_batch_size = config.batch_size
    config.optimizer.learning_rate, config.optimizer.weight_decay = 0.01, 5e-4
    config.optimizer.nesterov = False
    config.schedule.name, config.schedule.warmup_epochs = 'multistep', 0
    config.schedule.milestones, config.schedule.factor = (10, 20, 30, 40, 50, 60), 0.5
    return config
