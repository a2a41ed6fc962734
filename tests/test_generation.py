"""Generation stays in the sections asked for, whatever the model, tokenizer and batch."""

import json
import re

import pytest
import tiny_llms
import torch

from bioreport.fusion import PrefixFusion
from bioreport.generation import Sampling, Script, SectionWalker, cut_at_sentence, generate_sections
from bioreport.prompts import DEFAULT_SECTIONS, JSON, PLAIN, build_prompt
from bioreport.vocabulary import control_tokens, read_vocabulary

DIM = 20
SECTIONS = ("SLEEP", "EPILEPTIFORM ABNORMALITIES", "SEIZURES")


def make(family="llama", split="gpt2", chat=tiny_llms.CHAT):
    torch.manual_seed(1)
    return PrefixFusion(
        tiny_llms.llm(family), tiny_llms.tokenizer(chat, split=split), tiny_llms.Linear(DIM), DIM
    )


@pytest.fixture(scope="module")
def items():
    generator = torch.Generator().manual_seed(5)
    prompts = [
        build_prompt(SECTIONS, style="compact", history=history)
        for history in (None, "Falls and staring.", "x")
    ]
    return prompts, [[torch.randn(n, DIM, generator=generator)] for n in (2, 7, 4)]


@pytest.fixture(scope="module")
def fusion():
    return make()


def raw(fusion, monkeypatch):
    """Collects what the LLM's `generate` returns."""
    seen = []
    generate = fusion.llm.generate

    def spy(*args, **kwargs):
        seen.append(generate(*args, **kwargs))
        return seen[-1]

    monkeypatch.setattr(fusion.llm, "generate", spy)
    return seen


@pytest.mark.parametrize("layout", [PLAIN, JSON], ids=["plain", "json"])
@pytest.mark.parametrize("split", tiny_llms.SPLITS)
@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_never_leaves_the_sections(items, split, layout, temperature, monkeypatch):
    fusion = make(split=split)
    seen = raw(fusion, monkeypatch)
    fused = fusion.embed(*items)
    for seed in range(4):
        reports = generate_sections(
            fusion,
            fused,
            SECTIONS,
            layout=layout,
            max_new_tokens_per_section=12,
            seed=seed,
            temperature=temperature,
        )
        assert len(seen) == seed + 1  # one pass over the prompt for all sections
        for report, ids in zip(reports, seen[-1].tolist(), strict=True):
            assert tuple(report) == SECTIONS
            for text in report.values():
                assert any(c.isalnum() for c in text) and text == " ".join(text.split())
                assert not any(word in text for word in read_vocabulary(fusion.tokenizer).control)
            end = fusion.tokenizer.eos_token_id
            assert set(ids[ids.index(end) :]) == {end}
            assert not set(ids[: ids.index(end)]) & set(control_tokens(fusion.tokenizer))
            # token by token: a byte decoder can swallow a newline behind half a character
            texts = read_vocabulary(fusion.tokenizer).texts
            written = "".join(texts[i] for i in ids[: ids.index(end)])
            if layout is JSON and split != "sentencepiece":
                assert list(json.loads(written)) == ["SLEEP", "EPLEPTIFORM ABNORMALITIES", "SEIZURES"]
            elif layout is PLAIN:
                lines = [line.replace(" ", "") for line in re.split(r"\n+", written)]
                assert lines[:-1:2] == [f"##{name}".replace(" ", "") for name in SECTIONS]
                assert len(lines) == 2 * len(SECTIONS) + 1 and not lines[-1]


@pytest.mark.parametrize("split", tiny_llms.SPLITS)
def test_a_body_cannot_forge_a_heading(split):
    fusion = make(split=split)
    script = Script.write(fusion, PLAIN, SECTIONS)
    texts = read_vocabulary(fusion.tokenizer).texts
    forged = [i for i, text in enumerate(texts) if text is not None and "#" in text]
    walker = SectionWalker(script, 1, 8, Sampling(0.0))
    written = torch.empty(1, 0, dtype=torch.long)
    scores = torch.zeros(1, len(texts))
    scores[0, forged] = 9.0  # a model that wants nothing but headings
    while not walker.rows[0].done:
        written = torch.cat([written, walker(written, scores.clone()).argmax(1, keepdim=True)], 1)
        if written.shape[1] > 500:
            raise AssertionError("no end")
    bodies = [token for body in walker.rows[0].bodies for token in body.ids]
    ends = {token for closing in script.closing for token in closing}
    assert forged and bodies and not set(bodies) & (set(forged) - ends)


@pytest.mark.parametrize("family", tiny_llms.FAMILIES)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_batch_gives_what_items_give(family, temperature, items):
    fusion = make(family, chat=None if family == "gpt2" else tiny_llms.CHAT)
    prompts, sessions = items
    options = {"max_new_tokens_per_section": 16, "seed": 3, "temperature": temperature}
    together = generate_sections(fusion, fusion.embed(prompts, sessions), SECTIONS, **options)
    alone = [
        generate_sections(fusion, fusion.embed([p], [s]), SECTIONS, **options)[0]
        for p, s in zip(prompts, sessions, strict=True)
    ]
    assert together == alone
    assert len({tuple(report.values()) for report in together}) > 1


# JSON is learnt in one piece, as published, where SentencePiece's leading space has no place in the middle
@pytest.mark.untraced
@pytest.mark.parametrize(
    ("split", "layout"),
    [(split, PLAIN) for split in tiny_llms.SPLITS] + [(split, JSON) for split in ("gpt2", "qwen")],
)
def test_what_was_learnt_is_written(split, layout, items):
    """Training's and generation's tokens agree: a model that knows its responses by heart writes them."""
    fusion = make(split=split)
    fusion.compat = "celm" if layout is JSON else None
    prompts, sessions = items
    bodies = [
        dict(zip(SECTIONS, texts, strict=True))
        for texts in (
            ("Drowsiness; no spindles.", "None seen.", "None."),
            ("No sleep was seen. Awake 42 s.", "None seen (Fp1).", "No clinical events."),
            ("Not reached.", "Spikes at T3, 9.5 µV.", "None seen."),
        )
    ]
    fusion.llm.requires_grad_(True)
    fusion.train()
    optimizer = torch.optim.Adam(fusion.parameters(), lr=3e-3)
    for _ in range(250):
        loss = fusion.loss(fusion.embed(prompts, sessions, [layout.render(body) for body in bodies]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss < 0.01:
            break
    assert loss < 0.05
    assert generate_sections(fusion, fusion.embed(prompts, sessions), SECTIONS, layout=layout) == bodies


def test_greedy_whatever_the_checkpoint_says(fusion, items):
    fused = fusion.embed(*items)
    plain = generate_sections(fusion, fused, SECTIONS, max_new_tokens_per_section=10)
    config = fusion.llm.generation_config
    before = config.to_dict()
    try:
        config.update(
            do_sample=True,
            temperature=5.0,
            top_k=3,
            top_p=0.5,
            repetition_penalty=3.0,
            num_beams=2,
            max_length=5,
            suppress_tokens=list(range(50)),
            no_repeat_ngram_size=1,
        )
        for _ in range(3):
            assert generate_sections(fusion, fused, SECTIONS, max_new_tokens_per_section=10) == plain
        assert fusion.llm.generation_config is config and config.top_k == 3
    finally:
        config.update(**before)


def test_seed_decides_and_the_global_state_stays(fusion, items):
    fused = fusion.embed(*items)

    def sample(seed):
        return generate_sections(
            fusion, fused, SECTIONS, max_new_tokens_per_section=10, seed=seed, temperature=1.0
        )

    state = torch.get_rng_state()
    first = sample(7)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    assert sample(7) == first != sample(8)
    assert sample(None) != sample(None)


def test_sampling_follows_the_softmax():
    """Gumbel noise on logits draws from softmax(logits / temperature)."""
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0])
    sampling = Sampling(0.7, seed=0)
    ids = torch.zeros(1, 0, dtype=torch.int64)
    draws = torch.stack([sampling(ids, logits[None]).argmax() for _ in range(8000)])
    share = torch.bincount(draws, minlength=4) / len(draws)
    torch.testing.assert_close(share, (logits / 0.7).softmax(0), rtol=0, atol=0.02)


def walk(fusion, wish, layout=PLAIN, budget=8, sections=SECTIONS):
    """Text that the walker writes where the model always wants the ids that ``wish(step)`` ranks."""
    script = Script.write(fusion, layout, sections)
    walker = SectionWalker(script, 1, budget, Sampling(0.0))
    ids = torch.zeros(1, 0, dtype=torch.int64)
    for step in range(script.length(budget)):
        scores = torch.full((1, 432), -10.0)
        for rank, token in enumerate(wish(step)):
            scores[0, token] = 10.0 - rank
        ids = torch.cat([ids, walker(ids, scores).argmax(-1, keepdim=True)], 1)
        if ids[0, -1] == script.end_id:
            break
    walker.take(ids[:, -1])
    assert walker.rows[0].done
    return fusion.tokenizer.decode(ids[0, :-1])


@pytest.mark.parametrize("split", tiny_llms.SPLITS)
@pytest.mark.parametrize("layout", [PLAIN, JSON], ids=["plain", "json"])
def test_end_token_in_a_body_ends_the_body(split, layout):
    """A model that wants to end after a word at once gives one word a section, not an empty header."""
    fusion = make(split=split)
    end = fusion.tokenizer.eos_token_id
    (word,) = fusion.tokenizer("Normal", add_special_tokens=False)["input_ids"][-1:]
    text = walk(fusion, lambda step: [end, word], layout)
    said = fusion.tokenizer.decode([word])
    assert layout.parse(text) == dict.fromkeys(SECTIONS, said)


def test_end_tokens_of_the_configuration_count(fusion):
    stop = 400
    (word,) = fusion.tokenizer("Normal")["input_ids"][-1:]
    before = fusion.llm.generation_config.eos_token_id
    fusion.llm.generation_config.eos_token_id = [stop, 10**6]
    try:
        text = walk(fusion, lambda step: [stop, word], budget=5)
    finally:
        fusion.llm.generation_config.eos_token_id = before
    assert set(PLAIN.parse(text).values()) == {fusion.tokenizer.decode([word])}


@pytest.mark.parametrize("split", tiny_llms.SPLITS)
def test_newlines_alone_make_no_body(split):
    fusion = make(split=split)
    texts = read_vocabulary(fusion.tokenizer).texts
    blank = [i for i, t in enumerate(texts) if t is not None and not any(c.isalnum() for c in t)]
    text = walk(fusion, lambda step: blank, budget=3)
    assert list(PLAIN.parse(text)) == list(SECTIONS)
    assert all(any(c.isalnum() for c in body) for body in PLAIN.parse(text).values())


def test_merged_newline_tokens_lead_into_the_header():
    """A token such as ".\\n## SL" ends a body, and what it has of the next header is not written twice."""
    fusion = make(split="none")
    texts = read_vocabulary(fusion.tokenizer).texts
    script = Script.write(fusion, PLAIN, SECTIONS)
    merged = [i for i in script.closing[0] if texts[i] != "\n"]
    assert any("#" in texts[i] for i in merged)
    (word,) = fusion.tokenizer("None", add_special_tokens=False)["input_ids"][-1:]
    for token in merged:
        text = walk(fusion, lambda step, token=token: [token, word])
        assert list(PLAIN.parse(text)) == list(SECTIONS)
        assert "\n\n" not in text.replace(texts[token], "")


def test_budget_ends_at_a_sentence(fusion):
    ids = fusion.tokenizer("None seen. No slow")["input_ids"]
    report = {}

    def wish(step):
        return [ids[min(step - opening, len(ids) - 1)]] if step >= opening else []

    opening = len(fusion.encode_text(PLAIN.opening("SLEEP")))
    text = walk(fusion, wish, budget=len(ids), sections=("SLEEP",))
    report = PLAIN.parse(text)
    assert report == {"SLEEP": "None seen. No slow"}
    assert cut_at_sentence(report["SLEEP"]) == "None seen."


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("Alpha of 9.5 Hz. No slowing. Then som", "Alpha of 9.5 Hz. No slowing."),
        ("Whole. Sentence.", "Whole. Sentence."),
        ("Symmetric (as before.) The r", "Symmetric (as before.)"),
        ("Rhythm of 9.5 Hz. Amplitude of 42.", "Rhythm of 9.5 Hz."),
        ("Slowing, e.g. in sleep, and mo", "Slowing, e.g. in sleep, and…"),
        ("one", "one…"),
        (", one", ", one…"),
        ("Normal? Yes! And", "Normal? Yes!"),
    ],
)
def test_cut_at_sentence(text, cut):
    assert cut_at_sentence(text) == cut


def test_positions_are_respected(items):
    fusion = make("gpt2", chat=None)
    fused = fusion.embed(*items)
    with pytest.raises(ValueError, match=r"1024; max_new_tokens_per_section=(\d+) fits") as error:
        generate_sections(fusion, fused, SECTIONS, max_new_tokens_per_section=400)
    room = int(str(error.value).split("section=")[1].split()[0])
    script = Script.write(fusion, PLAIN, SECTIONS)
    assert fused.inputs_embeds.shape[1] + script.length(room) <= 1024
    assert fused.inputs_embeds.shape[1] + script.length(room + 1) > 1024
    rest = fusion.embed(["<|signal|>"], [[torch.zeros(1, DIM)]]).inputs_embeds.shape[1] - 1
    full = fusion.embed(["<|signal|>"], [[torch.zeros(1020 - rest, DIM)]])
    with pytest.raises(ValueError, match="shorten the history"):
        generate_sections(fusion, full, DEFAULT_SECTIONS, max_new_tokens_per_section=1)


def test_right_padded_celm_batch_is_turned(fusion, items):
    celm = PrefixFusion(fusion.llm, fusion.tokenizer, fusion.projector, DIM, compat="celm")
    prompts, sessions = items
    together = celm.embed(prompts, sessions)
    assert (together.attention_mask[:, 0] == 1).all() and (together.attention_mask[:, -1] == 0).any()
    options = {"layout": JSON, "max_new_tokens_per_section": 8}
    alone = [
        generate_sections(celm, celm.embed([p], [s]), SECTIONS, **options)[0]
        for p, s in zip(prompts, sessions, strict=True)
    ]
    assert generate_sections(celm, together, SECTIONS, **options) == alone


def test_default_sections_and_wrong_arguments(fusion, items):
    fused = fusion.embed(*items)
    report = generate_sections(fusion, fused, DEFAULT_SECTIONS, max_new_tokens_per_section=2)[0]
    assert tuple(report) == DEFAULT_SECTIONS
    with pytest.raises(ValueError, match="no section"):
        generate_sections(fusion, fused, [])
    with pytest.raises(ValueError, match="budget"):
        generate_sections(fusion, fused, SECTIONS, max_new_tokens_per_section=0)
    with pytest.raises(ValueError, match="temperature"):
        generate_sections(fusion, fused, SECTIONS, temperature=-1)


def test_nan_logits_stay_inside(fusion, items, monkeypatch):
    """A broken model writes nonsense, but no control token and no missing section."""
    script = Script.write(fusion, PLAIN, SECTIONS)
    walker = SectionWalker(script, 1, 2, Sampling(0.0))
    ids = torch.zeros(1, 0, dtype=torch.int64)
    while not ids.shape[1] or ids[0, -1] != script.end_id:
        ids = torch.cat([ids, walker(ids, torch.full((1, 432), torch.nan)).argmax(-1, keepdim=True)], 1)
    assert not set(ids[0, :-1].tolist()) & set(control_tokens(fusion.tokenizer))
    assert list(PLAIN.parse(fusion.tokenizer.decode(ids[0, :-1]))) == list(SECTIONS)
