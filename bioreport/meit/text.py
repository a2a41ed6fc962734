"""What MEIT asks of a language model and how a report follows: the published text, or a chat template."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from bioreport.prompts import PLAIN, one_line
from bioreport.vocabulary import control_tokens

# What the published code asks, by data set.
PROMPTS: Mapping[str, str] = MappingProxyType(
    {
        "mimic-iv-ecg": "Given the ECG signal embeddings, please help me generate an accurate description "
        "for this ECG signal embeddings:",
        "ptb-xl": "generate a description of the ECG embeddings:",
    }
)
TEMPLATES = ("published", "chat")
USER, ASSISTANT = "<|user|>", "<|assistant|>"


def report_text(sections: Mapping[str, str]) -> str:
    """A manifest's sections as the text to learn: a single one without its name, as published."""
    if len(sections) == 1:
        return one_line(next(iter(sections.values())))
    return PLAIN.render(sections).strip()


class ReportText:
    """Prompts and reports as ids.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizer
    template : {"published", "chat"}, optional
        Plain text with ``<|user|>`` and ``<|assistant|>`` as in MEIT, or the model's own chat template; by
        default the chat template where there is one.

    Raises
    ------
    ValueError
        For a tokenizer without an end token or, where asked for, a chat template.
    """

    def __init__(self, tokenizer: Any, template: str | None = None) -> None:
        if tokenizer.eos_token_id is None:
            raise ValueError("the tokenizer has no end token (eos_token), so a report could not end")
        can_chat = getattr(tokenizer, "chat_template", None) is not None
        template = template or ("chat" if can_chat else "published")
        if template not in TEMPLATES or (template == "chat" and not can_chat):
            raise ValueError(
                f"template must be one of {', '.join(TEMPLATES)}, got {template!r}"
                if template not in TEMPLATES
                else "the tokenizer has no chat template; take template='published'"
            )
        self.tokenizer = tokenizer
        self.template = template
        control = {*control_tokens(tokenizer).values(), USER, ASSISTANT}
        self._control = sorted(control, key=len, reverse=True)

    def prompt_ids(self, prompt: str) -> list[int]:
        """Ids of a prompt in the template, up to where the report begins."""
        return self._prompt(prompt)[1]

    def report_ids(self, prompt: str, report: str) -> list[int]:
        """Ids of a report and its end, as they follow `prompt_ids`."""
        report, end = self._clean(report), self.tokenizer.eos_token_id
        if self.template == "chat":
            return [*self._ids(report), end]
        text, before = self._prompt(prompt)
        # in one piece, as published, unless a token would reach over the border
        whole = self._ids(f"{text}{report}{self.tokenizer.eos_token}\n", special=True)
        if whole[: len(before)] == before:
            return whole[len(before) :]
        return [*self._ids(report), end]

    def texts(self, ids: Any) -> list[str]:
        """What written ids [B, T] say, without control tokens."""
        return [text.strip() for text in self.tokenizer.batch_decode(ids, skip_special_tokens=True)]

    def _prompt(self, prompt: str) -> tuple[str, list[int]]:
        prompt = self._clean(prompt)
        if self.template == "published":
            text = f"{USER}\n{prompt}\n{ASSISTANT}\n"
            return text, self._ids(text, special=True)
        text = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}],
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=False,
        )
        # the template writes the begin token itself
        return text, self._ids(text)

    def _clean(self, text: str) -> str:
        for word in self._control:
            text = text.replace(word, " ")
        return text.strip()

    def _ids(self, text: str, special: bool = False) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=special)["input_ids"]) if text else []
