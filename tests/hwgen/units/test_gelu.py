import torch

from vitruvius.hwgen.units.gelu import Gelu, cycles
from vitruvius.models.integer.gelu import gelu


def test_every_code_equals_the_golden(play):
    codes = list(range(-32768, 32768))
    result = play(Gelu(), {"x": codes}, {"result": -16}, extra=Gelu.LATENCY)["result"]
    expected = gelu(torch.tensor(codes, dtype=torch.int64)).tolist()
    assert cycles(len(codes)) == len(codes) + Gelu.LATENCY - 1
    assert result[Gelu.LATENCY :] == expected
