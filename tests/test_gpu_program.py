"""benchmarks/gpu_program.py counts what a compiled program's text says."""

import importlib.util
from pathlib import Path

import pytest

PATH = Path(__file__).parent.parent / 'benchmarks' / 'gpu_program.py'
TEXT = '''HloModule jit__step, is_scheduled=true

%fused_part (param_0: f32[1000000], param_1: f32[64]) -> f32[64] {
  %param_0 = f32[1000000]{0} parameter(0)
  %param_1 = f32[64]{0} parameter(1)
  %slice.1 = f32[64]{0} slice(%param_0), slice={[0:64]}
  ROOT %add.1 = f32[64]{0} add(%slice.1, %param_1)
}

%fused_whole (param_0.1: f32[1000000]) -> bf16[1000000] {
  %param_0.1 = f32[1000000]{0} parameter(0)
  ROOT %convert.1 = bf16[1000000]{0} convert(%param_0.1)
}

ENTRY %main (a: f32[1000000], b: f32[64]) -> f32[64] {
  %a = f32[1000000]{0} parameter(0)
  %b = f32[64]{0} parameter(1)
  %all-reduce-start = ((f32[1000000]{0}), f32[1000000]{0}) all-reduce-start(%a), to_apply=%sum
  %loop_convert_fusion = bf16[1000000]{0} fusion(%a), kind=kLoop, calls=%fused_whole
  %cudnn-conv.1 = (bf16[8,4,4,16]{3,2,1,0}, u8[0]{0}) custom-call(%loop_convert_fusion), custom_call_target="c"
  %all-reduce-done = f32[1000000]{0} all-reduce-done(%all-reduce-start)
  %input_transpose_fusion = f32[8,4,4,16]{3,2,1,0} fusion(%b), kind=kInput, calls=%fused_other
  %all-reduce.1 = f32[] all-reduce(%b), to_apply=%sum
  ROOT %loop_add_fusion = f32[64]{0} fusion(%all-reduce-done, %b), kind=kLoop, calls=%fused_part
}
'''


@pytest.fixture(scope='module')
def program():
    spec = importlib.util.spec_from_file_location('gpu_program', PATH)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(PATH.parent)
        spec.loader.exec_module(module)
    return module


def test_bytes_are_what_operations_read_and_write(program):
    """Of an operand that is sliced the slice alone; whatever only has a name moves nothing."""
    moved = {one.name: one.bytes for one in program.operations(TEXT)}
    assert moved['loop_convert_fusion'] == 4_000_000 + 2_000_000
    assert moved['cudnn-conv.1'] == 2_000_000 + 2 * 8 * 4 * 4 * 16
    assert moved['loop_add_fusion'] == 3 * 4 * 64
    found = program.count(TEXT, batch=8)
    assert found['operations'] == 6 and found['tiny'] == 3
    assert found['bytes'] == sum(moved[name] for name in (
        'all-reduce-start', 'loop_convert_fusion', 'cudnn-conv.1', 'input_transpose_fusion', 'all-reduce.1',
        'loop_add_fusion'))


def test_kinds_of_interest_are_told(program):
    found = program.count(TEXT, batch=8)
    assert found['float32_activation_gb'] == round(4 * 8 * 4 * 4 * 16 / 1e9, 3)
    assert found['transposes'][0] == 1 and found['copies'] == [0, 0]
    first, second = found['all_reduces']
    assert first == {'mb': 4.0, 'dtypes': ['f32'], 'beside': 2, 'beside_gb': 0.01}
    assert (second['beside'], second['mb']) == (0, 0.0)


def test_every_card_is_described(program):
    for name, card in program.CARDS.items():
        text = program.describe(card)
        assert f'name: "{card.name}"' in text and name in card.name
        assert program.peaks.flops(card.name, 'bfloat16') and card.copy < card.bandwidth
        assert ('ACCELERATED_FEATURES' in text) == (card.capability >= (9, 0))  # sm_80a is no target: XLA aborts
