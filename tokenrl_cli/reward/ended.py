"""Did the text end by itself?"""

from __future__ import annotations

import numpy as np

from tokenrl_cli.interfaces import Texts


class Ended:
    """1 where the policy generated EOS; 0 where the text was cut at the limit, and for every prefix before EOS.

    A metric of text does not see EOS: a finished text and the same words with more to come have the same score. Mixed
    with this reward their scores differ. Alone it is gamed by ending at once.
    """

    needs_references = False

    def __call__(self, texts: Texts) -> np.ndarray:
        """Returns 1 or 0 for each text, [B] float64."""
        return texts.ended.astype(np.float64)
