"""The one list of options: every name once, with its default and meaning.

A recipe starts from `get_config()`; the command line overrides it, as --config.batch_size=512. A placeholder is unset
until somebody sets it: the reader's own default holds. What a recipe takes stands after a colon, a model of its MODELS
or one of its VARIANTS: configs/resnet50.py:resnet101.

On a laptop, in minutes, any ImageNet recipe learns scikit-learn's digits, with --config.data.format=digits
--config.data.eval_split=test --config.model.num_classes=10 --config.batch_size=16 --config.eval_batch_size=120
--config.augment.size=32 --config.augment.scale="(0.5, 1.0)" --config.eval.size=32 --config.eval.resize=32
--config.epochs=4 and what it says of itself. The rate goes with the batch; a warm-up longer than the run is shortened.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from imagenet_jax.errors import UserError, unknown


def get_config() -> ConfigDict:
    """Defaults; locked, so that a misspelt option is an error."""
    config = ConfigDict()
    config.message = ''                     # what this run is for; saved, logged and shown
    config.seed = 0                         # of parameters, order, augmentation and dropout

    config.model = _model()                 # -> models.create
    config.init_from = ''                   # a run's folder, or PyTorch weights, to start from instead of at random
    config.init_head = placeholder(str)     # of init_from: 'keep' or 'new'; where unset, the names of classes decide
    config.freeze = ()                      # patterns of parameters that stay as they are, such as ('conv1/*', 'bn1/*')
    config.data = _data()                   # -> data.read
    config.augment = _augment()             # training images on the host -> images.train_view
    config.policy = _policy()               # training images on the host -> images.policies.POLICIES
    config.eval = _eval()                   # evaluation images on the host -> images.eval_view
    config.normalize = _normalize()         # on the device -> images.batch.Normalize
    config.erase = _erase()                 # training images on the device -> images.erase.ERASERS
    config.mix = _mix()                     # training batches on the device, after that -> images.mix.Mix

    config.batch_size = 256                 # images of one update, on all devices together
    config.accumulation = 1                 # parts a batch is computed in, one after the other
    config.epochs = 90.0                    # of the training split
    config.steps = 0                        # where not 0: updates, instead of epochs
    config.ema_decay = 0.0                  # of averaged weights, evaluated beside the raw ones; 0: none

    config.loss = _loss()                   # -> task.TASKS
    config.distill = _distill()             # -> distill.load
    config.optimizer = _optimizer()         # -> optim.OPTIMIZERS
    config.schedule = _schedule()           # -> schedules.SCHEDULES
    config.lookahead = _lookahead()         # -> optim.Lookahead

    config.eval_batch_size = 256            # on all devices together
    config.eval_epochs = 1.0                # between evaluations; 0: never
    config.eval_steps = 0                   # where not 0: instead of eval_epochs
    config.confusion_epochs = 10.0          # between confusion matrices, drawn at an evaluation; 0: never
    config.misclassified = 16               # of the surest mistakes, drawn with each confusion matrix; 0: none
    config.checkpoint_steps = 1000          # between saves, beside the one at each evaluation; 0: those alone
    config.log_steps = 100                  # between rows of metrics
    config.stop_after = 0                   # evaluations in a row without a better score end the run; 0: never
    config.max_bad_steps = 50               # in a row without a finite update stop the run; 0: never
    config.profile_steps = ()               # (start, stop): steps after `start` are traced, to `stop` or an evaluation
    config.parameter_table = False          # logs every parameter at the start, not their number alone
    config.deterministic = False            # GPU: the same bits each time, slower
    config.compilation_cache = True         # keep compiled programs in the user's cache folder
    config.resume_unchecked = False         # go on from checkpoints whose config.json is missing
    config.dry_run = False                  # one step, one evaluation step, one save, and nothing written
    config.distributed = _distributed()     # -> hosts.join
    return config.lock()


def _model() -> ConfigDict:
    model = ConfigDict()
    model.name = 'resnet50'                 # one of models.names()
    model.num_classes = 1000                # outputs: as many as the data has classes
    model.dtype = placeholder(str)          # of the computation: bfloat16 (where unset), float16 (loss scaled) or
                                            # float32 (where unset, on a CPU)
    model.norm = 'batch'                    # BatchNorm statistics: 'batch' of each device, 'sync' of all, 'frozen' as
                                            # init_from has them; or group, switchable, evonorm_b0
    model.act = placeholder(str)            # relu, relu6, swish, hard_swish or mish, where not the family's own
    model.zero_gamma = placeholder(bool)    # last norm of each residual branch starts at scale 0
    model.drop_path = placeholder(float)    # residual blocks: rate at which the last one's branch is dropped
    model.drop_block = placeholder(float)   # residual blocks: fraction of late maps that is dropped in squares, at the
                                            # end of training; it rises linearly from 0
    model.remat = placeholder(bool)         # ResNets to MobileNets: computes blocks twice, saves memory (not on a CPU)
    model.stride_in_1x1 = placeholder(bool)  # bottleneck ResNets: v1 of the paper, not v1.5
    model.shortcut = placeholder(str)       # CIFAR ResNets: 'A' pads, 'B' projects; other ResNets: 'conv' or 'avgpool'
    model.stem = placeholder(str)           # ResNets v1: 'conv', or 'deep', which with avgpool is ResNet-D
    model.antialias = placeholder(bool)     # ResNets v1: blur-pool instead of strides
    model.squeeze_excite = placeholder(bool)  # ResNets v1, v2 and CIFAR's: branches are gated by channel
    model.groups = placeholder(int)         # alexnet_v1 and alexnet_bn: 1 for a single tower
    model.dropout = placeholder(float)      # rate before the classifier, or around its hidden layers
    model.width = placeholder(float)        # mobilenet_v1 and v2: of every layer, as a multiple of the paper's
    model.alpha = placeholder(float)        # octave ResNets: fraction of the channels at half the resolution
    model.lip = placeholder(bool)           # ResNets, v2 too: learned pools (LIP) for max-pool and strides
    model.deformable = placeholder(int)     # likewise: last stages whose 3x3 convolutions are deformable, 0 to 3
    return model


def _data() -> ConfigDict:
    data = ConfigDict()
    data.format = 'folder'                  # one of sources.names(); docs/data.md shows each
    data.path = 'data/imagenet'             # root of the data set
    data.train_split = 'train'              # the part of it to train on
    data.eval_split = 'val'                 # and to evaluate on
    data.holdout = placeholder(float)       # fraction of the training images that a hash of their keys holds out as
                                            # eval_split, where the data has no such split
    data.dataset = placeholder(str)         # tfds: name[/config][:version]
    data.images = placeholder(str)          # list: folder that its paths start from, where not data.path
    data.labels = placeholder(str)          # cifar: fine or coarse; voc: largest (object) or all (multi-label);
                                            # parquet: a column, or what precedes its _label; webdataset: field of JSON
    data.num_examples = placeholder(int)    # synthetic: images in each split; 0: as many as ImageNet has
    data.exif = placeholder(bool)           # whether images are turned as their EXIF says; unset: as they are stored
    data.processes = 0                      # worker processes that decode; 0: threads of this process
    data.threads = 0                        # where there are no worker processes; 0: one a core
    data.on_error = 'skip'                  # an unreadable sample: 'skip' (count, name, replace) or 'raise'
    data.max_bad_fraction = 0.1             # of the split that may be unreadable
    return data


def _augment() -> ConfigDict:
    augment = ConfigDict()
    augment.size = 224                      # side in pixels
    augment.crop = 'random_resized'         # random_resized, shorter_side (VGG's), pad (CIFAR's) or none
    augment.scale = placeholder(tuple)      # random_resized: area, as a fraction of the image's
    augment.ratio = placeholder(tuple)      # random_resized: width over height
    augment.shorter = placeholder(tuple)    # shorter_side: (least, most) pixels that side is resized to
    augment.pad = placeholder(int)          # pad: zeros on each side, in pixels
    augment.flip = True                     # left and right, every second image
    augment.flip_vertical = placeholder(bool)  # top and bottom, every second image
    augment.repeats = placeholder(int)      # times an image comes in a row, in an epoch of as many samples
    augment.views = placeholder(int)        # of each sample: the first undistorted, for a loss that compares them
    augment.first_size = placeholder(int)   # side in early epochs, with ramp_epochs
    augment.ramp_epochs = placeholder(tuple)  # (start, end): epochs between which the side grows to size
    augment.rotation = placeholder(float)   # degrees: U[-rotation, rotation], bilinear
    augment.color_jitter = 0.0              # strength on brightness, contrast and saturation
    augment.hue = placeholder(float)        # joins color_jitter: U[-hue, hue] of the colour circle, at most 0.5
    augment.jitter_probability = placeholder(float)  # of color_jitter and hue
    augment.hsv = placeholder(tuple)        # saturation and value each times U[low, high], such as (0.8, 1.25)
    augment.lighting = placeholder(float)   # AlexNet's: deviation along principal components, such as 0.1
    augment.grey = placeholder(float)       # probability
    augment.blur = placeholder(float)       # probability; Gaussian, of a deviation of U[0.1, 2] pixels
    augment.solarize = placeholder(float)   # probability; from level 128 on
    return augment


def _policy() -> ConfigDict:
    policy = ConfigDict()
    policy.name = 'none'                    # or autoaugment, randaugment, trivialaugment, augmix, three_augment
    policy.dataset = placeholder(str)       # autoaugment: searched on imagenet, cifar10 or svhn
    policy.count = placeholder(int)         # randaugment: operations
    policy.magnitude = placeholder(int)     # randaugment: 0 to 30
    policy.deviation = placeholder(float)   # randaugment: of a normal draw around the magnitude
    policy.probability = placeholder(float)  # randaugment: of each operation being applied
    policy.severity = placeholder(int)      # augmix: 1 to 10
    policy.width = placeholder(int)         # augmix: chains that are mixed
    policy.depth = placeholder(int)         # augmix: operations of a chain; -1: 1 to 3
    policy.alpha = placeholder(float)       # augmix: of the Dirichlet and the Beta of the weights
    return policy


def _eval() -> ConfigDict:
    evaluation = ConfigDict()
    evaluation.resize = 256                 # shorter side in pixels
    evaluation.size = 224                   # then the centre crop
    evaluation.interpolation = placeholder(str)  # bilinear, where unset, or bicubic
    evaluation.crop_ratio = placeholder(float)   # where set, instead of resize: size / shorter side, such as 0.875
    evaluation.views = placeholder(str)     # center, where unset, five_crop, ten_crop or fully_convolutional: averaged
    evaluation.scales = placeholder(tuple)  # where set: the whole centre square at each such size, averaged
    evaluation.flip = placeholder(bool)     # True: each view's mirror image too
    return evaluation


def _normalize() -> ConfigDict:
    normalize = ConfigDict()
    normalize.mean = (0.485, 0.456, 0.406)  # of red, green and blue, of pixels in 0..1: taken away
    normalize.std = (0.229, 0.224, 0.225)   # and then divided by
    return normalize


def _erase() -> ConfigDict:
    erase = ConfigDict()
    erase.name = 'none'                     # none, random (a box of random area and aspect) or cutout (a square)
    erase.probability = placeholder(float)  # random: of an image losing anything
    erase.area = placeholder(tuple)         # random: least and greatest, as fractions of the image's
    erase.aspect = placeholder(tuple)       # random: height over width, least and greatest
    erase.fill = placeholder(str)           # random: constant (the mean colour), noise (of each pixel) or channel (a
                                            # random colour)
    erase.side = placeholder(int)           # cutout: in pixels
    erase.off_epochs = placeholder(float)   # the run's last epochs, in which nothing is erased
    return erase


def _mix() -> ConfigDict:
    mix = ConfigDict()
    mix.mixup = 0.0                         # alpha of the Beta that a batch's share is drawn from, such as 0.2; 0: none
    mix.cutmix = placeholder(float)         # alpha of CutMix's share, 1 in the paper; 0: none
    mix.probability = placeholder(float)    # of a batch being mixed at all
    mix.switch = placeholder(float)         # with both: of a batch taking CutMix
    mix.off_epochs = placeholder(float)     # the run's last epochs, in which nothing is mixed
    return mix


def _loss() -> ConfigDict:
    loss = ConfigDict()
    loss.name = 'softmax'                   # bce: a yes or no for each class; sigmoid: where an image may have several
    loss.smoothing = 0.0                    # of the labels
    loss.exclude_target = placeholder(bool)  # softmax, bce: what smoothing takes from a label goes to the others alone
    loss.threshold = placeholder(float)     # bce: mixed targets above it become 1, others 0
    loss.consistency = placeholder(float)   # softmax, bce: weight of the divergence between an image's augment.views
    return loss


def _distill() -> ConfigDict:
    distill = ConfigDict()
    distill.teacher = placeholder(str)      # the folder of a run or an import, whose answers are learnt too
    distill.temperature = placeholder(float)  # that answers are softened by
    distill.weight = placeholder(float)     # in 0..1, of the teacher's answers against the labels
    return distill


def _optimizer() -> ConfigDict:
    optimizer = ConfigDict()
    optimizer.name = 'sgd'                  # sgd, adam, adamw, rmsprop, lars or lamb
    optimizer.learning_rate = 0.1           # the schedule's peak
    optimizer.momentum = placeholder(float)  # sgd, lars, rmsprop
    optimizer.nesterov = placeholder(bool)  # sgd, lars
    optimizer.beta1 = placeholder(float)    # adam, adamw, lamb: what the mean of gradients keeps
    optimizer.beta2 = placeholder(float)    # adam, adamw, lamb: what the mean of their squares keeps
    optimizer.rho = placeholder(float)      # rmsprop: what the mean of squares keeps
    optimizer.epsilon = placeholder(float)  # adam, adamw, lamb: added to the root of it; rmsprop: inside the root
    optimizer.trust_coefficient = placeholder(float)  # lars: of each kernel's own rate
    optimizer.weight_decay = 1e-4           # coupled: added to the gradient; adamw, lamb: to the direction
    optimizer.decay_bias_and_norm = True    # False: kernels alone
    optimizer.centralize = placeholder(bool)  # takes the mean from gradients of convolution kernels
    optimizer.clip_norm = placeholder(float)  # norm of all gradients together that is not exceeded; 0: any
    optimizer.clip_adaptive = placeholder(float)  # the same by output channel, as a fraction of its weights' norm
    optimizer.rate_factors = ()             # (pattern, factor) pairs for learning rates, such as (('fc/*', 10.0),)
    return optimizer


def _schedule() -> ConfigDict:
    schedule = ConfigDict()
    schedule.name = 'cosine'                # one of schedules.SCHEDULES, after the warm-up
    schedule.warmup_epochs = 5.0            # linear from 0; a fifth of a run that would be over by then
    schedule.base_batch_size = 0            # the batch that learning_rate is for: another scales it; 0: it is for any
    schedule.floor = placeholder(float)     # cosine, linear, polynomial: learning rate at the end
    schedule.cycles = placeholder(int)      # cosine: how often it goes down, from the peak each time
    schedule.power = placeholder(float)     # polynomial: 0.5 is the square root of what is left of the run
    schedule.every_epochs = placeholder(float)  # step: epochs after which the rate is multiplied by factor
    schedule.milestones = placeholder(tuple)  # multistep: epochs at which the rate is multiplied by factor
    schedule.factor = placeholder(float)    # step, multistep, plateau; exponential: of an epoch
    schedule.patience = placeholder(int)    # plateau: evaluations without a better score that are waited for
    schedule.cooldown = placeholder(int)    # plateau: evaluations after a change that do not count
    schedule.minimum = placeholder(float)   # plateau: the lowest rate
    schedule.threshold = placeholder(float)  # plateau: fraction by which a score has to be better
    return schedule


def _lookahead() -> ConfigDict:
    lookahead = ConfigDict()
    lookahead.steps = 0                     # updates after which slow weights go towards the weights; 0: never
    lookahead.alpha = 0.5                   # how far
    return lookahead


def _distributed() -> ConfigDict:
    distributed = ConfigDict()
    distributed.address = ''                # host:port of rank 0, with count and rank
    distributed.count = 0                   # processes in all
    distributed.rank = -1                   # of this process
    distributed.detect = False              # ask SLURM, Open MPI or Kubernetes for the three
    distributed.start_timeout = 300         # seconds to wait for the last process
    distributed.timeout = 60                # seconds of silence after which a process is lost, and the others end
    return distributed


def checked(model: str, known: Sequence[str]) -> str:
    """`model`, which has to be in `known`, the models of a recipe.

    Raises:
      UserError: it is not; says which was meant, or which recipe it has.
    """
    if model in known:
        return model
    from imagenet_jax import catalog
    if model in catalog.RECIPE_OF:
        raise UserError(f'{model} is no model of this recipe; it is trained with --config {catalog.config(model)}')
    raise unknown('model of this recipe', model, known)


def varied(config: ConfigDict, variants: Mapping[str, Mapping[str, Any]], variant: str) -> ConfigDict:
    """The config with the changes of one of a recipe's variants, {option: value}.

    Raises:
      UserError: no such variant.
    """
    if variant not in variants:
        raise unknown('variant of this recipe', variant, variants)
    config.update_from_flattened_dict(variants[variant])
    return config
