"""What the ids of a tokenizer stand for, read once."""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

# added tokens that are not marked as special but steer all the same, such as <think> or [INST]
_STEERING = re.compile(r"<\S+>|\[\S+\]")


def control_tokens(tokenizer: Any) -> dict[int, str]:
    """Ids and texts of the tokens that structure a chat rather than say something."""
    control = dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))
    for i, token in getattr(tokenizer, "added_tokens_decoder", {}).items():
        if token.special or _STEERING.fullmatch(str(token)):
            control[int(i)] = str(token)
    return control


@dataclass(frozen=True)
class Vocabulary:
    """What each id of a tokenizer adds to a text.

    Attributes
    ----------
    texts : tuple of (str or None)
        By id; None for control tokens and for ids without a token.
    control : tuple of str
        Control tokens as text, longest first.
    """

    texts: tuple[str | None, ...]
    control: tuple[str, ...]


@lru_cache(maxsize=4)
def read_vocabulary(tokenizer: Any) -> Vocabulary:
    """The texts of a tokenizer's ids, each decoded once."""
    control = control_tokens(tokenizer)
    known = sorted(set(tokenizer.get_vocab().values()) - set(control))
    texts: list[str | None] = [None] * (max([*known, *control]) + 1)
    decoded = tokenizer.batch_decode([[i] for i in known], clean_up_tokenization_spaces=False)
    for i, text in zip(known, decoded, strict=True):
        texts[i] = text
    return Vocabulary(tuple(texts), tuple(sorted(control.values(), key=len, reverse=True)))
