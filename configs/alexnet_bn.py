"""AlexNet of NIPS 2012 with BatchNorm on ImageNet, 90 epochs.

python main.py --config configs/alexnet_bn.py --workdir runs/alexnet_bn

No published result is known for this recipe and this model. Published on mini-ImageNet, ten crops: 31.52% error. The
recipe is that of configs/alexnet_v1.py.
On a laptop, whole but small: add --config.data.format=synthetic --config.data.num_examples=64 --config.batch_size=8
--config.eval_batch_size=8 --config.augment.size=64 --config.eval.size=64 --config.eval.resize=73 --config.epochs=1.
"""

from configs import common


def get_config():
    """The recipe."""
    config = common.get_config()
    config.model.name = 'alexnet_bn'
    config.epochs, config.batch_size = 90, 128
    config.optimizer.learning_rate, config.optimizer.weight_decay = 0.01, 5e-4
    config.optimizer.nesterov = False
    config.schedule.name, config.schedule.warmup_epochs = 'multistep', 0
    config.schedule.milestones = (30, 60, 80)
    return config
