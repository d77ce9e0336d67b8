"""Which compressor a segment's numbers meet."""

import torch

from laconic.compressors._base import Compressor
from laconic.compressors._rounding import Cast
from laconic.compressors._sparsify import Identity
from laconic.layout import Rule

_WHOLE: dict[Rule, Compressor] = {"exact": Identity(), "bfloat16": Cast(torch.bfloat16)}


def for_rule(rule: Rule, compressor: Compressor) -> Compressor:
    """The compressor itself under the rule "compress", else what the rule names.

    Example:
        >>> import laconic
        >>> for_rule("bfloat16", laconic.TopK(1))
        Cast(dtype=torch.bfloat16)
    """
    return _WHOLE.get(rule, compressor)
