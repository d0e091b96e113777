"""The one list of options: every name once, with its default and meaning.

A recipe starts from `get_config()` and changes what it needs; the command line overrides either, as
--config.batch_size=512. A placeholder is unset until somebody sets it: then the reader's own default holds.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    """Defaults; locked, so that a misspelt option is an error."""
    config = ConfigDict()
    config.message = ''                     # what this run is for; saved, logged and shown
    config.seed = 0                         # of parameters, order, augmentation and dropout

    config.model = model = ConfigDict()     # -> models.create
    model.name = 'resnet50'                 # one of models.names()
    model.num_classes = 1000
    model.dtype = 'bfloat16'                # of the computation: bfloat16, float16 (loss scaled) or float32
    model.norm = 'batch'                    # BatchNorm statistics: 'batch' of each device, 'sync' of all
    model.act = placeholder(str)            # relu, relu6, swish, hard_swish or mish, where not the family's own
    model.zero_gamma = placeholder(bool)    # last norm of each residual branch starts at scale 0
    model.remat = placeholder(bool)         # ResNets to MobileNets: computes blocks twice, saves memory (not on a CPU)
    model.stride_in_1x1 = placeholder(bool)  # bottleneck ResNets: v1 of the paper, not v1.5
    model.shortcut = placeholder(str)       # CIFAR ResNets: 'A' pads, 'B' projects; ResNets v2: 'conv' or 'avgpool'
    model.groups = placeholder(int)         # alexnet_v1 and alexnet_bn: 1 for a single tower
    model.dropout = placeholder(float)      # rate, in families with dropout
    model.width = placeholder(float)        # mobilenet_v1 and v2: of every layer, as a multiple of the paper's
    model.alpha = placeholder(float)        # oct_resnet50: fraction of the channels at half the resolution

    config.init_from = ''                   # a run's folder, or PyTorch weights, to start from instead of at random
    config.freeze = ()                      # patterns of parameters that stay as they are, such as ('conv1/*', 'bn1/*')

    config.data = data = ConfigDict()       # -> sources.create and input_pipeline
    data.format = 'folder'                  # one of sources.names(); docs/data.md shows each
    data.path = 'data/imagenet'             # root of the data set
    data.train_split = 'train'
    data.eval_split = 'val'
    data.dataset = placeholder(str)         # tfds: name[/config][:version]
    data.images = placeholder(str)          # list: folder that its paths start from, where not data.path
    data.labels = placeholder(str)          # cifar: fine or coarse; voc: largest (object) or all (multi-label)
    data.num_examples = placeholder(int)    # synthetic: images in each split
    data.processes = 0                      # worker processes that decode; 0: threads of this process
    data.threads = 0                        # where there are no worker processes; 0: one a core
    data.on_error = 'skip'                  # an unreadable sample: 'skip' (count, name, replace) or 'raise'
    data.max_bad_fraction = 0.1             # of the split that may be unreadable

    config.augment = augment = ConfigDict()  # training images on the host -> augment.host.TrainTransform
    augment.size = 224                      # side in pixels
    augment.crop = 'random_resized'         # random_resized, pad (CIFAR's) or none
    augment.scale = (0.08, 1.0)             # random_resized: area, as a fraction of the image's
    augment.ratio = (3 / 4, 4 / 3)          # random_resized: width over height
    augment.pad = 4                         # pad: zeros on each side, in pixels
    augment.flip = True                     # left and right, every second image
    augment.color_jitter = 0.0              # strength on brightness, contrast and saturation

    config.eval = evaluation = ConfigDict()  # evaluation images on the host -> augment.host.EvalTransform
    evaluation.resize = 256                 # shorter side in pixels
    evaluation.size = 224                   # then the centre crop

    config.normalize = normalize = ConfigDict()  # on the device -> augment.device.Normalize
    normalize.mean = (0.485, 0.456, 0.406)
    normalize.std = (0.229, 0.224, 0.225)

    config.batch_size = 256                 # images of one update, on all devices together
    config.accumulation = 1                 # parts a batch is computed in, one after the other
    config.epochs = 90.0                    # of the training split
    config.steps = 0                        # where not 0: updates, instead of epochs
    config.loss = 'softmax'                 # or 'sigmoid', where an image may have several classes
    config.label_smoothing = 0.0
    config.ema_decay = 0.0                  # of averaged weights, evaluated beside the raw ones; 0: none

    config.optimizer = optimizer = ConfigDict()  # -> optim.create
    optimizer.name = 'sgd'
    optimizer.learning_rate = 0.1           # the schedule's peak
    optimizer.momentum = 0.9
    optimizer.nesterov = True
    optimizer.weight_decay = 1e-4           # coupled: added to the gradient
    optimizer.decay_bias_and_norm = True    # False: kernels alone

    optimizer.rate_factors = ()             # (pattern, factor) pairs for learning rates, such as (('fc/*', 10.0),)

    config.schedule = schedule = ConfigDict()  # -> optim.schedule
    schedule.name = 'cosine'                # cosine, multistep or constant, after the warm-up
    schedule.warmup_epochs = 5.0            # linear from 0
    schedule.floor = 0.0                    # learning rate at the cosine's end
    schedule.milestones = ()                # multistep: epochs at which the rate is multiplied by factor
    schedule.factor = 0.1                   # multistep
    schedule.base_batch_size = 0            # where not 0: the peak is times batch_size / base_batch_size

    config.eval_batch_size = 256            # on all devices together
    config.eval_epochs = 1.0                # between evaluations; 0: never
    config.eval_steps = 0                   # where not 0: instead of eval_epochs
    config.confusion_epochs = 10.0          # between confusion matrices, drawn at an evaluation; 0: never
    config.checkpoint_steps = 1000          # between saves, beside the one at each evaluation; 0: those alone
    config.log_steps = 100                  # between rows of metrics
    config.max_bad_steps = 50               # in a row without a finite loss and gradient stop the run; 0: never

    config.deterministic = False            # GPU: the same bits each time, slower
    config.compilation_cache = True         # keep compiled programs in the user's cache folder
    config.dry_run = False                  # one step, one evaluation step, one save, and nothing written
    config.distributed = distributed = ConfigDict()  # -> runtime.join_hosts
    distributed.address = ''                # host:port of rank 0, with count and rank
    distributed.count = 0                   # processes in all
    distributed.rank = -1                   # of this process
    distributed.detect = False              # ask SLURM, Open MPI or Kubernetes for the three
    return config.lock()
