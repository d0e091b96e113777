"""AlexNet of NIPS 2012, two towers, on ImageNet, 90 epochs.

python main.py --config configs/alexnet_v1.py --workdir runs/alexnet_v1

Published (its table 2, one network, ten crops): 59.3 top-1, 81.8 top-5; not reproduced here. The paper divided the rate
by 10 three times, by eye; the epochs of that are ours.
On a laptop, whole but small: add --config.data.format=synthetic --config.data.num_examples=64 --config.batch_size=8
--config.eval_batch_size=8 --config.augment.size=64 --config.eval.size=64 --config.eval.resize=73 --config.epochs=1.
"""

from configs import common


def get_config():
    """The recipe."""
    config = common.get_config()
    config.model.name = 'alexnet_v1'
    config.epochs, config.batch_size = 90, 128
    config.optimizer.learning_rate, config.optimizer.weight_decay = 0.01, 5e-4
    config.optimizer.nesterov = False
    config.schedule.name, config.schedule.warmup_epochs = 'multistep', 0
    config.schedule.milestones = (30, 60, 80)
    return config
