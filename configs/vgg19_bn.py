"""VGG-19 with BatchNorm on ImageNet, 70 epochs.

python main.py --config configs/vgg19_bn.py --workdir runs/vgg19_bn

No published result is known for this recipe and this model. Batch and number of epochs are ours: nobody names them.
On a laptop, whole but small: add --config.data.format=synthetic --config.data.num_examples=64 --config.batch_size=8
--config.eval_batch_size=8 --config.augment.size=64 --config.eval.size=64 --config.eval.resize=73 --config.epochs=1.
"""

from configs import common


def get_config():
    """The recipe."""
    config = common.get_config()
    config.model.name = 'vgg19_bn'
    config.epochs, config.batch_size = 70, 128
    config.optimizer.learning_rate, config.optimizer.weight_decay = 0.01, 5e-4
    config.optimizer.nesterov = False
    config.schedule.name, config.schedule.warmup_epochs = 'multistep', 0
    config.schedule.milestones, config.schedule.factor = (10, 20, 30, 40, 50, 60), 0.5
    return config
