"""How large a model is: its layers, their parameters and multiply-adds, from one trace and without computing."""

import collections
import dataclasses
import math
from collections.abc import Iterable, Iterator

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
from jax.extend import core

# What a module's parameters start at: most of the time of a trace, and nothing that is looked at here.
_STARTS = {'kernel_init', 'bias_init', 'scale_init'}


@dataclasses.dataclass(frozen=True)
class Layer:
    """A module with parameters of its own.

    Attributes:
      path: of its parameters, such as layer1/0/conv1.
      kind: class of the module, such as Conv.
      shape: of what it answers for one image.
      parameters: their number.
      multiply_adds: for one image.
    """
    path: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    multiply_adds: int


def layers(model: nn.Module, image_size: int) -> list[Layer]:
    """The layers of a model in the order they run, for evaluating one image of `image_size` x `image_size` pixels.

    Raises:
      UserError: images too small for the model.
    """
    if getattr(model, 'remat', False):  # the same layers, but the program would not tell their whole paths
        model = model.clone(remat=False)
    seen = {}

    def note(call, args, kwargs, context):
        module = context.module
        for start in _STARTS & vars(module).keys():
            object.__setattr__(module, start, nn.initializers.zeros)
        y = call(*args, **kwargs)
        if context.method_name == '__call__':
            seen['/'.join(module.path)] = (type(module).__name__, y)
        return y

    images = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    with nn.intercept_methods(note):
        program, (_, variables) = jax.make_jaxpr(model.init_with_output, return_shape=True)(jax.random.key(0), images)
    parameters, costs = collections.Counter(), collections.Counter()
    for path, leaf in flax.traverse_util.flatten_dict(variables['params']).items():
        parameters['/'.join(path[:-1])] += leaf.size
    for equation in program.jaxpr.eqns:
        if cost := multiply_adds(_within(equation)):
            # Flax names the part of the program that a module makes by its path, the model's class first.
            costs[str(equation.source_info.name_stack).partition('/')[2]] += cost
    return [Layer(path, kind, y.shape[1:], parameters[path], costs[path])
            for path, (kind, y) in seen.items() if parameters[path]]


def total(rows: Iterable[Layer]) -> tuple[int, int]:
    """Parameters and multiply-adds of all layers."""
    rows = list(rows)
    return sum(row.parameters for row in rows), sum(row.multiply_adds for row in rows)


def operations(jaxpr: core.Jaxpr) -> Iterator[core.JaxprEqn]:
    """Every operation of a program, those inside calls too."""
    for equation in jaxpr.eqns:
        yield from _within(equation)


def _within(equation: core.JaxprEqn) -> Iterator[core.JaxprEqn]:
    params = equation.params
    if params.get('branches_platforms'):  # of forms by platform the last is what is written
        params = {'branches': params['branches'][-1:]}
    inner = [p for value in params.values() for p in jax.tree.leaves(
        value, is_leaf=lambda x: isinstance(x, (core.Jaxpr, core.ClosedJaxpr)))
        if isinstance(p, (core.Jaxpr, core.ClosedJaxpr))]
    if not inner:
        yield equation
    for program in inner:
        yield from operations(getattr(program, 'jaxpr', program))


def multiply_adds(equations: Iterable[core.JaxprEqn]) -> int:
    """Those of convolutions (NHWC, HWIO) and of matrix products; whatever else the program does counts as nothing."""
    cost = 0
    for equation in equations:
        if equation.primitive.name == 'conv_general_dilated':
            kernel = equation.invars[1].aval.shape
            cost += equation.outvars[0].aval.size * math.prod(kernel[:3])
        elif equation.primitive.name == 'dot_general':
            (summed, _), _ = equation.params['dimension_numbers']
            cost += equation.outvars[0].aval.size * math.prod(equation.invars[0].aval.shape[i] for i in summed)
    return cost
