"""Writing the requested sections and nothing else.

One `generate` call writes a whole response: prompt and signal are read once and their cache serves every
section. A logits processor walks each row of the batch through the layout: a section's header is forced token
by token, its body is free until it ends itself (end mark or end token) or its budget is spent, then the next
header follows.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from bioreport.fusion import FusedInputs, PrefixFusion, TooLong
from bioreport.prompts import PLAIN, Layout, one_line
from bioreport.vocabulary import read_vocabulary

# a full stop behind these ends no sentence
_ABBREVIATIONS = ("e.g.", "i.e.", "approx.", "vs.", "ca.", "cf.", "resp.", "Dr.")
_SENTENCE_END = re.compile(r"[.!?][)\]\"']*(?=\s|$)")


def generate_sections(
    fusion: PrefixFusion,
    fused: FusedInputs,
    sections: Sequence[str],
    *,
    layout: Layout = PLAIN,
    max_new_tokens_per_section: int = 160,
    seed: int | None = None,
    temperature: float = 0.0,
) -> list[dict[str, str]]:
    """Write ``sections`` for every item of a batch.

    Parameters
    ----------
    fusion : PrefixFusion
    fused : FusedInputs
        From ``fusion.embed(prompts, sessions)``.
    sections : sequence of str
        Correct section names, in the order wanted.
    layout : Layout
        The response's form, see `bioreport.prompts.layout_for`.
    max_new_tokens_per_section : int
        Budget of a body in tokens; a body that spends it is cut behind its last whole sentence.
    seed : int, optional
        Seed of the sampling; an item gets the same text in a batch as alone. None draws one.
    temperature : float
        0 is greedy, whatever the checkpoint's ``generation_config`` says.

    Returns
    -------
    list of dict of str to str
        Section name to text, one line each, never empty; in the order of ``sections``.

    Raises
    ------
    ValueError
        Where the sequence could become longer than the LLM has positions, or an argument makes no sense.
    """
    if not sections:
        raise ValueError("no section to write")
    if max_new_tokens_per_section < 1 or temperature < 0:
        raise ValueError("the budget must be at least 1 token and the temperature at least 0")
    fused = fused.left_padded()
    script = Script.write(fusion, layout, sections)
    longest = script.length(max_new_tokens_per_section)
    _check_room(fusion, fused.inputs_embeds.shape[1], longest, len(sections), max_new_tokens_per_section)
    walker = SectionWalker(
        script, len(fused.inputs_embeds), max_new_tokens_per_section, Sampling(temperature, seed)
    )
    with fusion.plain_generation(), torch.inference_mode():
        written = fusion.llm.generate(
            inputs_embeds=fused.inputs_embeds,
            attention_mask=fused.attention_mask,
            logits_processor=LogitsProcessorList([walker]),
            max_new_tokens=longest,
            do_sample=False,
            eos_token_id=script.end_id,
            pad_token_id=script.end_id,
        )
    walker.take(written[:, -1])
    return [
        {
            name: _text(fusion.tokenizer, body, layout)
            for name, body in zip(sections, row.bodies[:-1], strict=True)
        }
        for row in walker.rows
    ]


def _check_room(fusion: PrefixFusion, prompt: int, new: int, sections: int, budget: int) -> None:
    limit = fusion.max_positions
    if limit is None or prompt + new <= limit:
        return
    room = budget - -(-(prompt + new - limit) // sections)
    cure = f"max_new_tokens_per_section={room} fits" if room > 0 else "shorten the history or the sections"
    raise TooLong(
        f"prompt and signal take {prompt} positions and {sections} sections up to {new} more, "
        f"but the language model has {limit}; {cure}"
    )


# --- what may be written where


@dataclass(frozen=True)
class Script:
    """Which tokens are forced, free or closing, section by section.

    Attributes
    ----------
    opening : list of int
        Ids of the first header.
    passages : list of (list of int)
        Ids that end section ``i`` and open the next, where the body stopped without an end mark.
    closing : list of (dict of int to list of int)
        Per section: ids that end a body, each with the ids still due after it.
    free : Tensor [V] bool
        Ids a body may hold.
    wordy : Tensor [V] bool
        Those of them with a letter or a digit.
    ending : list of Tensor [V] bool
        `closing`'s keys as masks.
    stops : list of int
        The LLM's end tokens; in a body they count as its end mark.
    marks : list of int
        Per section, the closing id that stands for an end token.
    end_id : int
        The end token that closes a response.
    """

    opening: list[int]
    passages: list[list[int]]
    closing: list[dict[int, list[int]]]
    free: Tensor
    wordy: Tensor
    ending: list[Tensor]
    stops: list[int]
    marks: list[int]
    end_id: int

    def length(self, budget: int) -> int:
        """The most tokens that a response can take."""
        due = [
            max([len(passage), *map(len, closing.values())])
            for passage, closing in zip(self.passages, self.closing, strict=True)
        ]
        return len(self.opening) + sum(due) + budget * len(due) + 1

    @classmethod
    def write(cls, fusion: PrefixFusion, layout: Layout, sections: Sequence[str]) -> "Script":
        """The script of ``sections`` for a fusion's tokenizer and LLM."""
        mark = layout.mark
        end_id = fusion.tokenizer.eos_token_id
        config = fusion.llm.generation_config.eos_token_id
        stops = {end_id, *([config] if isinstance(config, int) else config or [])}
        texts = {
            i: text
            for i, text in enumerate(read_vocabulary(fusion.tokenizer).texts)
            if text is not None and i not in stops
        }
        size = max(texts) + 1
        free = _mask((i for i, t in texts.items() if mark not in t and _printable(t, layout)), size)
        wordy = free & _mask((i for i, t in texts.items() if any(c.isalnum() for c in t)), size)
        if not wordy.any():
            raise ValueError("the tokenizer has no token with a letter in it")
        heads = {i: t for i, t in texts.items() if mark in t and _printable(t.partition(mark)[0], layout)}
        passages = [layout.passage(name) for name in [*sections[1:], None]]
        closing = [_closing(heads, passage, mark, fusion.encode_text) for passage in passages]
        if not all(closing):
            raise ValueError(f"the tokenizer has no token that writes {mark!r}")
        return cls(
            opening=fusion.encode_text(layout.opening(sections[0])),
            passages=[fusion.encode_text(passage) for passage in passages],
            closing=closing,
            free=free,
            wordy=wordy,
            ending=[_mask(ids, size) for ids in closing],
            # a configuration may name an end token that the LLM does not have
            stops=sorted(i for i in stops if i < fusion.llm.config.get_text_config().vocab_size),
            marks=[min(ids, key=lambda i: (len(heads[i]), i)) for ids in closing],
            end_id=end_id,
        )


def _closing(
    heads: dict[int, str], passage: str, mark: str, encode: Callable[[str], list[int]]
) -> dict[int, list[int]]:
    """Ids with ``mark`` in them that agree with ``passage``, and what is then left of it."""
    rest: dict[str, list[int]] = {}
    closing: dict[int, list[int]] = {}
    for i, text in heads.items():
        tail = re.sub(r"\s*\n\s*", "\n", text[text.index(mark) :])
        if passage.startswith(tail):
            left = passage[len(tail) :]
            closing[i] = rest[left] if left in rest else rest.setdefault(left, encode(left))
    return closing


def _printable(text: str, layout: Layout) -> bool:
    return not any(c in layout.forbidden or unicodedata.category(c) == "Cc" for c in text)


def _mask(ids: Iterable[int], size: int) -> Tensor:
    mask = torch.zeros(size, dtype=torch.bool)
    mask[list(ids)] = True
    return mask


# --- the walk through the script


@dataclass
class Body:
    """A section's tokens as they came, and whether its budget ran out."""

    ids: list[int] = field(default_factory=list)
    cut: bool = False


@dataclass
class Row:
    """How far one item of the batch has come.

    Attributes
    ----------
    due : list of int
        Ids still forced.
    bodies : list of Body
        Those finished, and one more that is to be written next.
    worded : bool
        Whether the present body has a letter or a digit yet.
    """

    due: list[int]
    bodies: list[Body] = field(default_factory=lambda: [Body()])
    worded: bool = False
    done: bool = False


class Sampling(LogitsProcessor):
    """Sampling as the largest of logits / temperature + Gumbel noise, from a generator of its own.

    Every row of a batch gets the same noise: its draw is the same in any batch, and the global random state
    is neither read nor moved.

    Parameters
    ----------
    temperature : float
        0 leaves the scores as they are.
    seed : int, optional
        None draws one.
    """

    def __init__(self, temperature: float, seed: int | None = None) -> None:
        self.temperature = temperature
        self.generator = torch.Generator()
        if seed is None:
            self.generator.seed()
        else:
            self.generator.manual_seed(seed)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        noise = self.noise(scores)
        return scores if noise is None else scores / self.temperature + noise

    def noise(self, scores: Tensor) -> Tensor | None:
        """Noise [V] of the next step for scores [B, V]; None at temperature 0."""
        if self.temperature == 0:
            return None
        uniform = torch.rand(scores.shape[1], generator=self.generator, dtype=torch.float64)
        gumbel = -torch.log(-torch.log(uniform.clamp(1e-300, 1 - 1e-16)))
        return gumbel.to(scores.device, scores.dtype)


class SectionWalker(LogitsProcessor):
    """Forces headers and ends bodies, for each row of a batch by itself.

    Sampling is done here as well.
    """

    def __init__(self, script: Script, rows: int, budget: int, sampling: Sampling) -> None:
        self.script = script
        self.rows = [Row(list(script.opening)) for _ in range(rows)]
        self.budget = budget
        self.sampling = sampling
        self._masks: dict[tuple[str, int], Tensor] = {}

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if input_ids.shape[1]:
            self.take(input_ids[:, -1])
        noise = self.sampling.noise(scores)
        out = torch.full_like(scores, -torch.inf)
        for i, row in enumerate(self.rows):
            if row.done or row.due:
                out[i, self.script.end_id if row.done else row.due[0]] = 0.0
            else:
                out[i] = self._free(row, scores[i], noise)
        return out

    def take(self, tokens: Tensor) -> None:
        """Advance every row by the token [B] it was given."""
        for row, token in zip(self.rows, tokens.tolist(), strict=True):
            if not row.done:
                self._take(row, token)

    def _take(self, row: Row, token: int) -> None:
        if row.due:
            row.due.pop(0)
            row.done = not row.due and len(row.bodies) > len(self.script.passages)
            return
        section, body = len(row.bodies) - 1, row.bodies[-1]
        body.ids.append(token)
        row.worded = row.worded or bool(self.script.wordy[token])
        rest = self.script.closing[section].get(token)
        if rest is None and len(body.ids) >= self.budget:
            body.cut, rest = True, self.script.passages[section]
        if rest is not None:
            self._leave(row, rest)

    def _leave(self, row: Row, rest: list[int]) -> None:
        row.due = list(rest)
        row.bodies.append(Body())
        row.worded = False
        if len(row.bodies) > len(self.script.passages):
            row.due.append(self.script.end_id)

    def _free(self, row: Row, scores: Tensor, noise: Tensor | None) -> Tensor:
        section = len(row.bodies) - 1
        if row.worded:
            mark = self.script.marks[section]
            scores = scores.clone()
            scores[mark] = scores[[mark, *self.script.stops]].max()
            allowed = self._allowed("any", section, scores)
        else:
            last = len(row.bodies[-1].ids) + 1 >= self.budget
            allowed = self._allowed("wordy" if last else "free", 0, scores)
        if noise is not None:
            scores = scores / self.sampling.temperature + noise
        # a NaN here would end in a token that is not allowed
        return torch.where(allowed, scores.nan_to_num(neginf=torch.finfo(scores.dtype).min), -torch.inf)

    def _allowed(self, kind: str, section: int, scores: Tensor) -> Tensor:
        if (kind, section) not in self._masks:
            script = self.script
            mask = script.wordy if kind == "wordy" else script.free
            if kind == "any":
                mask = mask | script.ending[section]
            # an LLM's vocabulary is often padded beyond its tokenizer's
            padded = torch.zeros(len(scores), dtype=torch.bool)
            padded[: len(mask)] = mask[: len(scores)]
            self._masks[kind, section] = padded.to(scores.device)
        return self._masks[kind, section]


# --- from tokens to text


def _text(tokenizer: Any, body: Body, layout: Layout) -> str:
    text = tokenizer.decode(body.ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    text = one_line(text.partition(layout.mark)[0].replace("\N{REPLACEMENT CHARACTER}", ""))
    for word in read_vocabulary(tokenizer).control:
        # ordinary tokens can spell one out; its letters stay, so that no text comes out empty
        text = text.replace(word, re.sub(r"[\W_]+", " ", word).strip())
    return cut_at_sentence(text) if body.cut else text


def cut_at_sentence(text: str) -> str:
    """``text`` up to its last whole sentence; its whole words and an ellipsis where it has none.

    A full stop right behind a digit at the very end counts for nothing: the rest of a number may be missing.
    """
    ends = [
        match.end()
        for match in _SENTENCE_END.finditer(text)
        if not text[: match.end()].endswith(_ABBREVIATIONS)
        and not (match.end() == len(text) and re.search(r"\d\.$", text))
    ]
    if ends:
        return text[: ends[-1]]
    words = text.rpartition(" ")[0]
    if not any(c.isalnum() for c in words):
        words = text
    return f"{words.rstrip(' ,;:.')}…"
