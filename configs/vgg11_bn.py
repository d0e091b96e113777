"""VGG-11 with BatchNorm on ImageNet, 70 epochs.

python main.py --config configs/vgg11_bn.py --workdir runs/vgg11_bn

No published result is known for this recipe and this model. Batch and number of epochs are ours: nobody names them.
On a laptop, whole but small: add --config.data.format=synthetic --config.data.num_examples=64 --config.batch_size=8
--config.eval_batch_size=8 --config.augment.size=64 --config.eval.size=64 --config.eval.resize=73 --config.epochs=1.
"""

from configs import vgg11


def get_config():
    """vgg11's recipe with another model."""
    config = vgg11.get_config()
    config.model.name = 'vgg11_bn'
    return config
