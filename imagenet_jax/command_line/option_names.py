"""Options by name: what each means, and which is meant by a name that is none of them."""

import ast
import difflib
import io
import tokenize
from collections.abc import Iterable

from imagenet_jax.errors import UserError

# Options -> what other libraries and their users call them.
_ELSEWHERE = {
    'optimizer.name': 'opt optim optimizer optimiser',
    'optimizer.learning_rate': 'lr rate base_lr blr max_lr init_lr initial_lr peak_lr learning_rate_init',
    'optimizer.weight_decay': 'wd decay l2 weight_decay_rate',
    'optimizer.beta1 optimizer.beta2': 'betas opt_betas',
    'optimizer.epsilon': 'eps opt_eps',
    'optimizer.clip_norm': 'clip clip_grad grad_clip clip_grad_norm max_norm max_grad_norm gradient_clip_val',
    'optimizer.decay_bias_and_norm': 'bias_weight_decay norm_weight_decay no_bias_decay',
    'optimizer.rate_factors': 'lr_mult layer_decay',
    'schedule.name': 'sched scheduler schedule lr_scheduler lr_schedule lr_policy',
    'schedule.warmup_epochs': 'warmup warm_up lr_warmup_epochs warmup_steps warmup_iters warmup_t',
    'schedule.floor': 'min_lr lr_min end_lr final_lr eta_min',
    'schedule.factor': 'gamma lr_gamma decay_rate lr_decay',
    'schedule.every_epochs': 'step_size lr_step_size decay_epochs',
    'schedule.milestones': 'lr_steps lr_milestones decay_milestones',
    'batch_size': 'b bs batch batchsize train_batch_size per_device_train_batch_size global_batch_size',
    'eval_batch_size': 'test_batch_size val_batch_size validation_batch_size per_device_eval_batch_size',
    'accumulation': 'accumulate grad_accum grad_accum_steps accumulation_steps gradient_accumulation_steps',
    'epochs': 'epoch num_epochs n_epochs max_epochs num_train_epochs total_epochs',
    'steps': 'max_steps num_steps total_steps train_steps num_train_steps iterations iters max_iters',
    'ema_decay': 'ema model_ema model_ema_decay',
    'seed': 'random_seed random_state rng_seed manual_seed',
    'model.name': 'model arch a architecture backbone network net model_name',
    'model.num_classes': 'classes nb_classes n_classes',
    'model.dtype': 'precision amp fp16 bf16 half mixed_precision',
    'model.drop_path': 'stochastic_depth drop_connect',
    'model.dropout': 'drop dropout_rate',
    'model.norm': 'sync_bn syncbn norm_layer',
    'model.remat': 'grad_checkpointing gradient_checkpointing checkpointing',
    'init_from': 'pretrained weights initial_checkpoint finetune load_from from_pretrained',
    'freeze': 'frozen freeze_layers freeze_backbone',
    'data.path': 'data data_dir data_path dataset_path dataset_dir root train_dir imagenet',
    'data.format': 'data_format dataset_type',
    'data.processes data.threads': 'workers j num_workers data_workers dataloader_num_workers',
    'data.train_split': 'train_set',
    'data.eval_split': 'val_split test_split validation_split val_set',
    'augment.size eval.size': 'img_size image_size imsize input_size resolution crop_size train_crop_size',
    'eval.resize': 'val_resize_size resize_size crop_pct',
    'augment.flip': 'hflip horizontal_flip random_flip',
    'augment.flip_vertical': 'vflip vertical_flip',
    'augment.repeats': 'ra_reps repeated_aug aug_repeats',
    'policy.name': 'policy aa auto_augment autoaugment randaugment aug augmentation',
    'erase.probability': 'erase reprob random_erase random_erasing',
    'mix.mixup': 'mixup_alpha', 'mix.cutmix': 'cutmix_alpha',
    'loss.name': 'loss criterion loss_fn',
    'loss.smoothing': 'label_smoothing label_smooth',
    'distill.teacher': 'teacher_model teacher_path',
    'eval_epochs': 'eval_every eval_interval val_interval validation_frequency eval_freq',
    'checkpoint_steps': 'save_steps save_every save_freq save_interval checkpoint_every checkpoint_freq',
    'log_steps': 'log_every print_freq log_interval log_freq logging_steps',
    'stop_after': 'early_stopping early_stop',
    'distributed.address': 'master_addr dist_url coordinator_address',
    'distributed.count': 'world_size nnodes num_processes',
}
_OURS = {name: ours.split() for ours, names in _ELSEWHERE.items() for name in names.split()}
# Flags of this program, likewise.
_FLAGS = dict.fromkeys(('out', 'output', 'output_dir', 'out_dir', 'save_dir', 'logdir', 'log_dir', 'run_dir', 'resume'),
                       '--workdir DIR')


def meant(name: str, known: Iterable[str]) -> list[str]:
    """The options that a name may mean, the likeliest first; [] where it is like none.

    Args:
      name: as it was given, without 'config.'.
      known: the options there are, likewise.
    """
    known = list(known)
    last = name.rpartition('.')[2].replace('-', '_').lower()
    by_last = {}
    for option in known:
        by_last.setdefault(option.rpartition('.')[2], []).append(option)
    if found := [option for option in _OURS.get(last, ()) if option in known]:
        return found
    if last in by_last:
        return by_last[last][:3]
    if near := difflib.get_close_matches(name, known, n=3):
        return near
    return [by_last[near][0] for near in difflib.get_close_matches(last, by_last, n=3)]


def unknown_option(name: str, known: Iterable[str]) -> UserError:
    """The error for config.NAME, which is no option."""
    found = meant(name, known)
    hint = f'did you mean {" or ".join(f"config.{option}" for option in found)}?' if found else (
        '--config FILE --help lists them all')
    return UserError(f"unknown option 'config.{name}'; {hint}")


def unknown_flag(flag: str, known: Iterable[str], flags: Iterable[str]) -> UserError:
    """The error for --FLAG, where options are `known` and the command's own flags are `flags`."""
    name = flag.lstrip('-')
    plain = name.replace('-', '_').lower()
    near = difflib.get_close_matches(plain, list(flags), n=1, cutoff=0.8)
    if near or plain in _FLAGS:
        hint = f'did you mean {f"--{near[0]}" if near else _FLAGS[plain]}?'
    elif found := meant(name, known):
        hint = f'did you mean {" or ".join(f"--config.{option}" for option in found)}?'
    else:
        hint = 'options are given as --config.NAME=VALUE, and --config FILE --help lists them'
    return UserError(f'unknown flag {flag}; {hint}')


def meanings(source: str) -> dict[str, str]:
    """Option -> what the comment beside it says, of the source of configs/common.py; of a section, 'NAME.'."""
    comments = {token.start[0]: (token.line.strip().startswith('#'), token.string.lstrip('# '))
                for token in tokenize.generate_tokens(io.StringIO(source).readline) if token.type == tokenize.COMMENT}
    sections, found = {'get_config': ''}, {}
    for function in (node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)):
        for statement in function.body:
            if not (isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Attribute)):
                continue
            name, line = sections.get(function.name, '') + statement.targets[0].attr, statement.end_lineno
            if isinstance(statement.value, ast.Call) and ast.unparse(statement.value.func).startswith('_'):
                name += '.'
                sections[ast.unparse(statement.value.func)] = name
            said = [comments[line][1]] if line in comments else []
            while comments.get(line := line + 1, (False,))[0]:
                said.append(comments[line][1])
            found[name] = ' '.join(said)
    return found
