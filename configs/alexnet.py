"""AlexNet, torchvision's form, on ImageNet, 90 epochs.

python main.py --config configs/alexnet.py --workdir runs/alexnet

Published, with torchvision's recipe, which this follows: 56.52 top-1; not reproduced here.
On a laptop, whole but small: add --config.data.format=synthetic --config.data.num_examples=64 --config.batch_size=8
--config.eval_batch_size=8 --config.augment.size=64 --config.eval.size=64 --config.eval.resize=73 --config.epochs=1.
"""

from configs import common


def get_config():
    """The recipe."""
    config = common.get_config()
    config.model.name = 'alexnet'
    config.epochs, config.batch_size = 90, 256
    config.optimizer.learning_rate, config.optimizer.weight_decay = 0.01, 1e-4
    config.optimizer.nesterov = False
    config.schedule.name, config.schedule.warmup_epochs = 'multistep', 0
    config.schedule.milestones = (30, 60)
    return config
