"""Prompts and the form of responses."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioreport.prompts import (
    DEFAULT_SECTIONS,
    DESCRIPTIONS,
    HISTORY_CHARACTERS,
    JSON,
    PLAIN,
    SECTIONS,
    SIGNAL,
    build_prompt,
    celm_name,
    history_shown,
    layout_for,
    standard_name,
)

FACTS = ("Posterior dominant rhythm 9.5 Hz, 42 µV.", "Seizure: absent.")


def prompt(sections=DEFAULT_SECTIONS, **kwargs):
    return build_prompt(sections, **{"channels": ("C3", "Cz"), "duration_seconds": 605.0} | kwargs)


def test_sections_are_celms_eight_correctly_spelt():
    assert len(SECTIONS) == 8 and set(DEFAULT_SECTIONS) < set(SECTIONS) and len(DEFAULT_SECTIONS) == 5
    assert all(DESCRIPTIONS[name].endswith(".") for name in SECTIONS)
    assert not any("EPLEPTIFORM" in name for name in SECTIONS)


def test_celms_spelling_maps_both_ways():
    assert celm_name("INTERICTAL EPILEPTIFORM ABNORMALITIES") == "INTERICTAL EPLEPTIFORM ABNORMALITIES"
    for name in SECTIONS:
        assert standard_name(celm_name(name)) == name == standard_name(name)
    assert sum(celm_name(name) != name for name in SECTIONS) == 2


@pytest.mark.parametrize("style", ["full", "compact"])
def test_misspelt_names_only_inside_celm(style):
    sane = prompt(SECTIONS, style=style)
    celm = prompt(SECTIONS, style=style, compat="celm")
    assert "EPLEPTIFORM" not in sane and sane.count("EPILEPTIFORM") >= 2
    assert "EPILEPTIFORM" not in celm and "EPLEPTIFORM" in celm


def test_compact_prompt_is_these_lines():
    text = prompt(("SLEEP", "SEIZURES"), style="compact", history="Falls.\nSince May.", facts=FACTS)
    assert text.split("\n") == [
        SIGNAL,
        "Channels: 2.",
        "Duration: 605 s.",
        "History: Falls. Since May.",
        *FACTS,
        "Sections: SLEEP; SEIZURES.",
    ]


def test_full_prompt_says_what_is_there():
    text = prompt(history="First seizure.\n\nOn levetiracetam.", facts=FACTS)
    assert "Channels present (2): C3, Cz." in text and "605 s" in text
    assert "First seizure.\n\nOn levetiracetam." in text and "None was given" not in text
    assert all(f"- {fact}" in text for fact in FACTS)
    places = [text.index(f"- {name}: {DESCRIPTIONS[name]}") for name in DEFAULT_SECTIONS]
    assert places == sorted(places)
    assert "- SEIZURES:" not in text


@pytest.mark.parametrize("style", ["full", "compact"])
def test_zero_context(style):
    text = build_prompt(["SLEEP"], style=style, with_signal=False)
    assert SIGNAL not in text and "SLEEP" in text
    assert "None was given" in text or "History: none." in text
    assert "Channels" not in text and "Measurements and findings" not in text
    assert build_prompt(["SLEEP"], style=style, history="  \n ", with_signal=False) == text


@pytest.mark.parametrize("style", ["full", "compact"])
def test_history_and_facts_cannot_move_the_signal(style):
    text = prompt(
        style=style, history=f"a {SIGNAL}\x00\x1b[2J\u2028b", facts=[f"{SIGNAL} c", " "], channels=[SIGNAL]
    )
    assert text.count(SIGNAL) == 1
    assert not re.search(r"[\x00-\x09\x0b-\x1f\u2028]", text)


def test_celm_prompt_asks_for_json():
    assert '{"SLEEP": "...", "EPLEPTIFORM ABNORMALITIES": "..."}' in prompt(
        ("SLEEP", "EPILEPTIFORM ABNORMALITIES"), compat="celm"
    )


@pytest.mark.parametrize(
    ("sections", "options", "message"),
    [
        ([], {}, "at least one"),
        ("SLEEP", {}, "sequence"),
        (["SLEP"], {}, "unknown section 'SLEP'"),
        (["EPLEPTIFORM ABNORMALITIES"], {"compat": "celm"}, "unknown section"),
        (["SLEEP", "SLEEP"], {}, "twice"),
        (["SLEEP"], {"style": "long"}, "style"),
        (["SLEEP"], {"compat": "CELM"}, "compat"),
    ],
)
def test_wrong_arguments_are_said(sections, options, message):
    with pytest.raises(ValueError, match=message):
        build_prompt(sections, **options)


def test_layouts_render():
    sections = {"SLEEP": "None.\nAwake.", "EPILEPTIFORM ABNORMALITIES": 'So-called "wicket" waves.'}
    assert PLAIN.render(sections) == (
        '## SLEEP\nNone. Awake.\n## EPILEPTIFORM ABNORMALITIES\nSo-called "wicket" waves.\n'
    )
    assert json.loads(JSON.render(sections)) == {
        "SLEEP": "None. Awake.",
        "EPLEPTIFORM ABNORMALITIES": 'So-called "wicket" waves.',
    }
    assert layout_for(None) is PLAIN and layout_for("celm") is JSON
    with pytest.raises(ValueError, match="compat"):
        layout_for("meit")


@pytest.mark.parametrize("layout", [PLAIN, JSON])
def test_passages_are_what_render_writes(layout):
    text = (
        layout.opening("SLEEP")
        + "a"
        + layout.passage("EPILEPTIFORM ABNORMALITIES")
        + "b"
        + layout.passage(None)
    )
    assert layout.render({"SLEEP": "a", "EPILEPTIFORM ABNORMALITIES": "b"}) == text


@pytest.mark.untraced
@given(st.dictionaries(st.sampled_from(SECTIONS), st.text().map(lambda t: " ".join(t.split())), min_size=1))
def test_parse_undoes_render(sections):
    sections = {name: "x" + body for name, body in sections.items()}
    for layout in (PLAIN, JSON):
        rendered = layout.render(sections)
        # cleaning happens on the way in; from then on nothing changes
        parsed = layout.parse(rendered)
        assert list(parsed) == list(sections)
        assert layout.render(parsed) == rendered


def test_parse_of_what_a_model_might_write():
    assert PLAIN.parse("no header at all") == {}
    assert PLAIN.parse("Preface\n## Sleep \nNone.\n\nStill none.\n## SLEEP\nAgain.") == {
        "SLEEP": "None. Still none."
    }
    assert JSON.parse('```json\n{"SLEEP": "none.", "X": 3}\n```') == {"SLEEP": "none."}
    assert JSON.parse('{"SLEEP": "no') == {} == JSON.parse("nothing")


def test_of_a_long_history_a_compact_prompt_holds_the_beginning():
    history = "First witnessed seizure. " * 30
    shown = history_shown(history, "compact")
    assert len(shown) <= HISTORY_CHARACTERS and history.startswith(f"{shown} ")
    assert f"History: {shown}\n" in prompt(["SLEEP"], style="compact", history=history)
    assert " ".join(history.split()) in prompt(["SLEEP"], history=history)
    assert " ".join(history.split()) in prompt(["SLEEP"], style="compact", compat="celm", history=history)
    assert len(history_shown("x" * 999, "compact")) == HISTORY_CHARACTERS
    assert history_shown("Syncope.", "compact") == "Syncope."
