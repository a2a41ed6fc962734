"""Training an ECG tokenizer, keeping it, and tokenizing recordings on the command line."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import wfdb
from safetensors.torch import load_file
from wfdb_files import write_record

from bioreport.cli import main
from bioreport.ecg import reading
from bioreport.ecg.leads import LEADS
from bioreport.ecg.reading import EcgRecording
from bioreport.ecg.tokenizer import (
    load_tokenizer,
    measure,
    save_tokenizer,
    to_tensor,
    tokenize,
    train_tokenizer,
)
from bioreport.encoders.ecg_autoencoder import EcgTokenizer, TokenizerConfig
from bioreport.errors import InputError

SMALL = TokenizerConfig(dim=16, widths=(8, 8, 8, 8, 16), stages=2, codewords=8, blocks=1, hidden=16)


def beats(seconds: float = 25.0, sfreq: float = 500.0, rate: float = 70.0, gain: float = 1.0) -> np.ndarray:
    """mV [12, T]: a narrow wave a beat and a broad one after it, of another height in each lead."""
    time = np.arange(int(seconds * sfreq)) / sfreq
    phase = (time * rate / 60) % 1
    wave = np.exp(-(((phase - 0.3) / 0.012) ** 2)) + 0.25 * np.exp(-(((phase - 0.6) / 0.06) ** 2))
    return gain * wave * np.linspace(-0.6, 1.4, 12)[:, None]


def windows(count: int = 6) -> torch.Tensor:
    from bioreport.ecg.preprocess import preprocess_record

    batches = [
        preprocess_record(EcgRecording.from_array(beats(10, rate=55 + 8 * i), 500.0))[0] for i in range(count)
    ]
    return torch.cat([to_tensor(batch, SMALL.stride) for batch in batches])


@pytest.fixture(scope="module")
def trained() -> EcgTokenizer:
    return train_tokenizer(windows(), SMALL, steps=150, batch_size=6, lr=5e-3)


def test_training_beats_silence(trained: EcgTokenizer) -> None:
    x = windows()
    silence = x[~x.isnan()].abs().mean().item()
    found = measure(trained, x)
    assert found["mean_absolute_error_mv"] < 0.8 * silence
    assert len(found["utilisation"]) == 2 and 0 < found["pooled_utilisation"] <= 1


def test_training_is_repeatable() -> None:
    one, two = (train_tokenizer(windows(3), SMALL, steps=3, batch_size=3) for _ in range(2))
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, two.state_dict()[name]), name


def test_a_recording_becomes_codes_and_vectors_that_agree(trained: EcgTokenizer) -> None:
    tokens = tokenize(EcgRecording.from_array(beats(25), 500.0), trained)
    assert tokens.codes.shape == (3, 79, 2) and tokens.vectors.shape == (3, 79, 16)
    assert tokens.start_seconds.tolist() == [0.0, 10.0, 20.0]
    assert torch.equal(trained.quantizer.decode(tokens.codes.long()), tokens.vectors)


def test_absent_leads_are_gaps() -> None:
    from bioreport.ecg.preprocess import preprocess_record

    data = beats(10)
    batch, _ = preprocess_record(EcgRecording.from_array(data[6:8], 500.0, LEADS[6:8]))
    x = to_tensor(batch, SMALL.stride)
    assert x.shape == (1, 12, 2528)
    assert x[0, :6].isnan().all() and not x[0, 6:8, :2500].isnan().any() and x[0, :, 2500:].isnan().all()


def test_kept_and_loaded(trained: EcgTokenizer, tmp_path: Path) -> None:
    save_tokenizer(trained, tmp_path / "t")
    loaded = load_tokenizer(tmp_path / "t")
    x = windows(2)
    assert torch.equal(loaded.tokenize(x)[0], trained.tokenize(x)[0])


@pytest.mark.parametrize("damage", ["nothing", "config", "weights"])
def test_what_is_no_tokenizer_is_refused(
    trained: EcgTokenizer, tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "t"
    if damage != "nothing":
        save_tokenizer(trained, folder)
        broken = folder / ("config.json" if damage == "config" else "model.safetensors")
        broken.write_bytes(b"{}")
    assert main(["tokenize", "x.hea", "--tokenizer", str(folder), "-o", str(tmp_path / "out")]) == 1
    captured = capsys.readouterr()
    assert "is no tokenizer" in captured.err and "Traceback" not in captured.err


def test_command_line_trains_and_tokenizes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = []
    for i in range(3):
        wfdb.wrsamp(
            f"r{i}",
            fs=500,
            units=["mV"] * 12,
            sig_name=list(LEADS),
            p_signal=beats(10, rate=60 + 10 * i).T,
            fmt=["16"] * 12,
            write_dir=str(tmp_path),
        )
        split = "train" if i < 2 else "test"
        lines.append(json.dumps({"recording": f"r{i}.hea", "patient": f"p{i}", "split": split}))
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text("\n".join(lines) + "\n")
    out = tmp_path / "tokenizer"
    arguments = ["train", "tokenizer", str(manifest), "-o", str(out), "--max-steps", "2"]
    assert main([*arguments, "--quantizer", "residual"]) == 0
    assert "pooled_utilisation" in capsys.readouterr().err
    files = [str(tmp_path / "r0.hea"), str(tmp_path / "missing.hea")]
    assert main(["tokenize", *files, "--tokenizer", str(out), "-o", str(tmp_path / "codes")]) == 1
    tensors = load_file(tmp_path / "codes" / "r0.safetensors")
    assert tensors["codes"].shape == (1, 79, 4) and tensors["codes"].dtype == torch.int16
    assert "missing.hea" in capsys.readouterr().err


@pytest.fixture
def ecgs(tmp_path: Path) -> Path:
    """Two records of one name in two folders, a third beside the first, and a tokenizer."""
    for i, place in enumerate(("a/x", "b/x", "a/y")):
        folder = tmp_path / "ecgs" / place[0]
        folder.mkdir(parents=True, exist_ok=True)
        write_record(folder, place[2], beats(10, rate=60 + 10 * i), LEADS, sfreq=500.0)
    torch.manual_seed(0)
    save_tokenizer(EcgTokenizer(SMALL), tmp_path / "tokenizer")
    return tmp_path / "ecgs"


def run(folder: Path, *files: Path | str, output: Path | None = None) -> int:
    model, output = folder.parent / "tokenizer", output or folder.parent / "codes"
    return main(["tokenize", *map(str, files), "--tokenizer", str(model), "-o", str(output), "-q"])


def below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_two_ecgs_of_one_name_are_never_one_file(ecgs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    codes = ecgs.parent / "codes"
    one, two = ecgs / "a" / "x.hea", ecgs / "b" / "x.hea"
    with pytest.raises(SystemExit, match="2"):
        run(ecgs, one, two)
    assert capsys.readouterr().err.endswith(
        f"error: {one} and {two} would both be written to {codes}/x.safetensors; "
        "give their common folder or a manifest, whose outputs lie in subfolders, "
        "or give them in two calls with different -o\n"
    )
    assert not codes.exists()
    # what the sentence says, done
    expected = ["a/x.safetensors", "a/y.safetensors", "b/x.safetensors"]
    assert run(ecgs, ecgs) == 0 and below(codes) == expected
    held = [load_file(codes / name)["vectors"] for name in expected]
    assert not torch.equal(held[0], held[2])
    manifest = ecgs / "manifest.jsonl"
    lines = [{"recording": ["a/x.hea", "a/y.hea"]}, {"recording": "b/x.hea"}, {"recording": "a/y.hea"}]
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert run(ecgs, manifest, output=ecgs.parent / "listed") == 0
    assert below(ecgs.parent / "listed") == expected
    for name, vectors in zip(expected, held, strict=True):
        assert torch.equal(load_file(ecgs.parent / "listed" / name)["vectors"], vectors)
    assert capsys.readouterr().err == ""


def test_codes_overwrite_nothing_that_is_read(ecgs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    header = (ecgs / "a" / "x.hea").rename(ecgs / "a" / "model.hea")
    tokenizer = ecgs.parent / "tokenizer"
    before = (tokenizer / "model.safetensors").read_bytes()
    assert run(ecgs, header, output=tokenizer) == 1
    assert f"{tokenizer}/model.safetensors: is read, and would be overwritten" in capsys.readouterr().err
    # a link from the place of the codes to a signal file
    codes = ecgs.parent / "codes"
    codes.mkdir()
    (codes / "y.safetensors").symlink_to(ecgs / "a" / "y.dat")
    assert run(ecgs, ecgs / "a" / "y.hea") == 1
    assert "y.safetensors: is read, and would be overwritten" in capsys.readouterr().err
    assert (tokenizer / "model.safetensors").read_bytes() == before and below(tokenizer) == [
        "config.json",
        "model.safetensors",
    ]
    with pytest.raises(SystemExit, match="2"):
        run(ecgs, header, output=header)
    assert "is a file; codes need a folder" in capsys.readouterr().err


def test_an_interrupt_leaves_whole_files_only(
    ecgs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    codes, flush, flushed = ecgs.parent / "codes", os.fsync, []

    def interrupted(handle: int) -> None:
        flushed.append(handle)
        if len(flushed) == 2:
            raise KeyboardInterrupt
        flush(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", interrupted)
        assert run(ecgs, ecgs) == 130
    assert "everything already written is whole" in capsys.readouterr().err
    assert below(codes) == ["a/x.safetensors"] and load_file(codes / "a" / "x.safetensors")
    # what a kill has left goes with the next run
    (codes / "a" / ".y.safetensors.abcd1234").write_bytes(b"half")
    assert run(ecgs, ecgs) == 0
    assert below(codes) == ["a/x.safetensors", "a/y.safetensors", "b/x.safetensors"]


def test_an_ecg_on_which_a_library_fails_stops_no_other(
    ecgs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    read = reading.open_ecg

    def failing(path: Path) -> EcgRecording:
        if path.parent.name == "a":
            raise IndexError("of a header")
        return read(path)

    monkeypatch.setattr(reading, "open_ecg", failing)
    assert run(ecgs, ecgs) == 1
    told = capsys.readouterr().err
    assert told.count("cannot be tokenized (IndexError)") == 2 and "of a header" not in told
    assert below(ecgs.parent / "codes") == ["b/x.safetensors"]


def test_training_does_not_replace_a_foreign_folder(
    trained: EcgTokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held_out = tmp_path / "ecgs" / "held_out.dat"
    held_out.parent.mkdir()
    held_out.write_bytes(b"0")
    with pytest.raises(InputError, match="lies in it"):
        save_tokenizer(trained, held_out.parent)
    # told before the manifest is looked for
    assert main(["train", "tokenizer", "none.jsonl", "-o", str(held_out.parent)]) == 1
    assert "is no tokenizer's folder ('held_out.dat' lies in it)" in capsys.readouterr().err
    assert held_out.read_bytes() == b"0"
    save_tokenizer(trained, tmp_path / "t")
    save_tokenizer(trained, tmp_path / "t")


@pytest.mark.parametrize(
    "command",
    [
        ["train", "none.jsonl"],
        ["convert", "cbramod", "none.pth"],
        ["convert", "celm", "none.pt"],
        ["convert", "meit", "none.bin"],
        ["convert", "qinco", "none.pt"],
    ],
)
def test_a_foreign_folder_is_told_of_before_any_work(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"0")
    assert main([*command, "-o", str(tmp_path)]) == 1
    assert f"{tmp_path}: is no" in capsys.readouterr().err
    assert (tmp_path / "model.safetensors").read_bytes() == b"0"


def test_qincos_networks_learn_at_a_tenth_of_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[tuple[float, int]]] = []

    class Watched(torch.optim.AdamW):
        def step(self, *args: object, **kwargs: object) -> None:
            seen.append(
                [(group["lr"], sum(p.numel() for p in group["params"])) for group in self.param_groups]
            )
            super().step(*args, **kwargs)

    monkeypatch.setattr(torch.optim, "AdamW", Watched)
    model = train_tokenizer(windows(2), SMALL, steps=3, batch_size=2, lr=1e-2)
    of_quantizer = sum(p.numel() for p in model.quantizer.parameters())
    of_all = sum(p.numel() for p in model.parameters())
    assert len(seen) == 3
    for (rate, others), (slower, own) in seen:
        assert slower == pytest.approx(rate / 10)
        assert own == of_quantizer and others == of_all - of_quantizer
