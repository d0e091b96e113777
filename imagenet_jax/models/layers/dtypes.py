"""Which floating-point types a model computes in."""

import jax
import jax.numpy as jnp

from imagenet_jax.errors import UserError, unknown

FLOAT32 = jnp.dtype(jnp.float32)
_FLOATING = ('bfloat16', 'float16', 'float32', 'float64')


def floating(option: str, dtype) -> jnp.dtype:
    """The type that an option gives, by its name or as what JAX takes for one.

    Raises:
      UserError: it is no floating-point type.
    """
    try:
        dtype = jnp.dtype(dtype)
    except TypeError:
        raise unknown(option, dtype, _FLOATING) from None
    if dtype.name not in _FLOATING:
        raise unknown(option, dtype.name, _FLOATING)
    if dtype.name == 'float64' and not jax.config.jax_enable_x64:
        raise UserError(f'{option}=float64 needs JAX_ENABLE_X64=1 in the environment: JAX would compute in float32')
    return dtype


def at_least_float32(x: jax.Array) -> jax.Array:
    """Half precision as float32; float64 stays."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
