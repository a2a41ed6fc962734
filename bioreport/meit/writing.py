"""Reports that a trained MEIT writes."""

from collections.abc import Sequence
from os import PathLike
from typing import Any

from bioreport.ecg.reading import EcgRecording
from bioreport.fusion import TooLong
from bioreport.meit.files import load_meit
from bioreport.meit.model import Meit
from bioreport.meit.records import EcgRecord, read_record


def write_reports(
    model: Meit | str | PathLike[str],
    recordings: Sequence[EcgRecord | EcgRecording | str | PathLike[str]],
    *,
    prompt: str | None = None,
    batch_size: int = 8,
    **options: Any,
) -> list[str]:
    """What MEIT writes of each recording, greedy unless told otherwise.

    Parameters
    ----------
    model : Meit or path-like
        From `load_meit`, or its folder.
    recordings : sequence of EcgRecord, EcgRecording or path-like
        `read_record` chooses the 10 s of a longer one, and has warnings on what the model could not see.
    prompt : str, optional
        By default the one that the model was trained with.
    batch_size : int
        Reports written at once.
    **options
        See `Meit.generate`; ``max_new_tokens`` is by default what was left to a report in training.

    Returns
    -------
    list of str
        The text of each; sections, where the model was trained on several, under ``## NAME``, as
        `bioreport.prompts.PLAIN` parses them.

    Raises
    ------
    InputError
        Where the model or a recording cannot be used.
    ValueError
        As `Meit.generate`, or where the prompt is as long as the model was trained for.
    """
    if not isinstance(model, Meit):
        model = load_meit(model)
    prompt = model.prompt if prompt is None else prompt
    room = model.max_length - len(model.text.prompt_ids(prompt))
    if room < 1:
        raise TooLong(f"the prompt takes all of the {model.max_length} tokens that the model was trained for")
    options = {"max_new_tokens": room, **options}
    texts: list[str] = []
    for first in range(0, len(recordings), batch_size):
        records = [
            r if isinstance(r, EcgRecord) else read_record(r) for r in recordings[first : first + batch_size]
        ]
        texts += model.generate([record.data for record in records], [prompt] * len(records), **options)
    return texts
