"""The three forms of a report."""

import json
from html.parser import HTMLParser

import pytest

from bioreport.report import DISCLAIMER, Report


@pytest.fixture
def report() -> Report:
    return Report(
        file="a.edf",
        modality="eeg",
        duration_seconds=62.0,
        model={"name": "bioreport-tiny", "disclaimer": "Trained on simulated recordings."},
        sections=[{"name": "SLEEP", "text": "# Not <b>seen</b>."}],
        findings=[
            {
                "name": "posterior_dominant_rhythm",
                "present": True,
                "value": 9.5,
                "unit": "Hz",
                "channels": ["O1", "O2"],
                "start_seconds": None,
                "end_seconds": None,
                "source": "measurement",
            },
            {
                "name": "seizure",
                "present": False,
                "value": None,
                "unit": None,
                "channels": [],
                "start_seconds": None,
                "end_seconds": None,
                "source": "model",
            },
        ],
        measurements={"channels_present": ["O1", "O2"], "channels_absent": [], "x": float("nan")},
        warnings=["Channel F7 is\nflat."],
        timings={"encode": 0.5},
    )


def test_json_has_the_documented_keys_and_no_nan(report: Report) -> None:
    read = json.loads(report.to_json())
    assert list(read) == [
        "file",
        "modality",
        "duration_seconds",
        "model",
        "sections",
        "findings",
        "measurements",
        "warnings",
        "timings",
    ]
    assert read["measurements"]["x"] is None
    assert read["findings"][0]["value"] == 9.5


def test_markdown_escapes_generated_text_and_lists_only_what_is_present(report: Report) -> None:
    text = report.to_markdown()
    assert DISCLAIMER in text and "Trained on simulated recordings." in text
    assert "\n## SLEEP\n\n\\# Not &lt;b>seen&lt;/b>.\n" in text
    assert "| posterior dominant rhythm | 9.5 Hz | O1, O2 |" in text
    assert "seizure" not in text
    assert "- Channel F7 is flat." in text


def test_html_is_well_formed_and_escaped(report: Report) -> None:
    open_tags: list[str] = []

    class Checker(HTMLParser):
        def handle_starttag(self, tag: str, attrs: object) -> None:
            if tag != "meta":
                open_tags.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert open_tags.pop() == tag

    page = report.to_html()
    Checker().feed(page)
    assert not open_tags
    assert "<b>" not in page and "&lt;b&gt;seen" in page


def test_render_names_the_forms(report: Report) -> None:
    assert report.render("md") == report.to_markdown()
    with pytest.raises(KeyError):
        report.render("pdf")


def test_channels_of_several_recordings_are_told_of_each(report: Report) -> None:
    report.measurements = {
        "recordings": [
            {"channels_present": ["C3", "Fpz"], "channels_absent": []},
            {"channels_present": ["C3"], "channels_absent": ["Fpz"]},
        ]
    }
    lines = report.to_markdown().splitlines()
    assert "- Channels of recording 1: 2 (C3, Fpz)" in lines
    assert "- Channels of recording 2: 1 (C3)" in lines
    assert "- Absent channels of recording 2: 1 (Fpz)" in lines
    assert not any(line.startswith("- Channels:") for line in lines)
