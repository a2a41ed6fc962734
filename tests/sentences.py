"""What a user is told of a recording: one sentence, of its file."""

from pathlib import Path

import pytest

from bioreport.ecg.reading import EcgRecording
from bioreport.errors import InputError
from bioreport.recording import Recording, open_recording


def refuse(path: Path, *words: str) -> InputError:
    """See that the file is refused, in one sentence with these words."""
    with pytest.raises(InputError) as caught:
        open_recording(path)
    text = str(caught.value)
    assert text.startswith(str(path)) and "\n" not in text and text.endswith(".")
    for word in words:
        assert word in text, text
    return caught.value


def warned(recording: Recording | EcgRecording, *words: str) -> None:
    """See that one of the recording's warnings has these words, and each is a sentence."""
    assert any(all(word in sentence for word in words) for sentence in recording.warnings), recording.warnings
    assert all(sentence.endswith(".") and "\n" not in sentence for sentence in recording.warnings)
