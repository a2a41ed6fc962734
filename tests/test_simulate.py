"""Simulated recordings: truth that shows in the signal, files that can be read, same seed same samples."""

import json

import mne
import numpy as np
import pytest
from scipy.signal import welch

from bioreport.errors import InputError
from bioreport.findings import EEG_NAMES
from bioreport.simulate import Simulation, simulate_corpus, simulate_eeg, write_edf
from bioreport.simulation.corpus import split_of
from bioreport.simulation.montages import STYLES, position
from bioreport.simulation.plan import check_findings

RATE = 256.0


def simulate(seed: int, *names: str, seconds: float = 60.0) -> Simulation:
    return simulate_eeg(seed, duration_seconds=seconds, sfreq=RATE, present=names)


def band(data: np.ndarray, sfreq: float, low: float, high: float) -> np.ndarray:
    """RMS in µV of each channel within a band."""
    bins, power = welch(data.astype(float), sfreq, nperseg=int(2 * sfreq))
    inside = (bins >= low) & (bins < high)
    return np.sqrt(power[:, inside].sum(axis=1) * bins[1])


def inside(simulation: Simulation, start: float, end: float) -> np.ndarray:
    return simulation.data[:, int(start * simulation.sfreq) : int(end * simulation.sfreq)]


def centroid(piece: np.ndarray, sfreq: float) -> float:
    """Mean frequency of one channel's power between 1 and 15 Hz."""
    bins, power = welch(piece, sfreq, nperseg=min(len(piece), int(2 * sfreq)))
    use = (bins >= 1) & (bins <= 15)
    return float((bins[use] * power[use]).sum() / power[use].sum())


def rows(simulation: Simulation, *names: str) -> list[int]:
    return [simulation.names.index(name) for name in names if name in simulation.names]


def test_same_seed_same_samples_other_seed_others() -> None:
    first, again, other = simulate_eeg(3), simulate_eeg(3), simulate_eeg(4)
    np.testing.assert_array_equal(first.data, again.data)
    assert first.sections == again.sections and first.events == again.events
    assert first.data.shape != other.data.shape or not np.array_equal(first.data, other.data)


def test_shapes_truth_and_events_agree() -> None:
    for seed in range(40):
        x = simulate_eeg(seed)
        assert x.data.dtype == np.float32 and np.isfinite(x.data).all()
        assert len(x.labels) == len(x.names) == len(x.data) and len(set(x.labels)) == len(x.labels)
        assert 30 <= x.data.shape[1] / x.sfreq <= 180
        assert np.abs(x.data).max() <= 3276
        assert tuple(finding["name"] for finding in x.findings) == EEG_NAMES
        shown = {finding["name"] for finding in x.findings if finding["present"]}
        assert shown == {event.name for event in x.events}
        for event in x.events:
            assert 0 <= event.start_seconds < event.end_seconds <= x.data.shape[1] / x.sfreq + 1e-6
            assert set(event.channels) <= set(x.names)


@pytest.mark.parametrize("name", EEG_NAMES)
def test_exactly_the_findings_asked_for(name: str) -> None:
    wanted = {name, "posterior_dominant_rhythm"} if name == "posterior_asymmetry" else {name}
    for seed in range(4):
        x = simulate(seed, *wanted)
        assert {finding["name"] for finding in x.findings if finding["present"]} == wanted


def test_nothing_asked_for_nothing_shown() -> None:
    x = simulate(1)
    assert x.events == [] and not any(finding["present"] for finding in x.findings)


@pytest.mark.parametrize(
    "names", [("posterior_asymmetry",), ("burst_suppression", "seizure"), ("no_such_finding",)]
)
def test_impossible_findings_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError):
        check_findings(names)
    with pytest.raises(ValueError):
        simulate(0, *names)


def test_too_short_is_refused() -> None:
    with pytest.raises(ValueError, match="too short"):
        simulate_eeg(0, duration_seconds=5)


def test_posterior_rhythm_peaks_at_its_frequency_over_the_occiput() -> None:
    for seed in range(12):
        x = simulate(seed, "posterior_dominant_rhythm")
        rhythm = x.facts["posterior_rhythm"]
        bins, power = welch(x.data[rows(x, "O1", "O2")].astype(float), x.sfreq, nperseg=int(4 * x.sfreq))
        search = (bins > 6) & (bins < 13)
        peak = bins[search][np.argmax(power.mean(axis=0)[search])]
        assert abs(peak - rhythm["frequency_hz"]) <= 0.5, seed
        value = next(f["value"] for f in x.findings if f["name"] == "posterior_dominant_rhythm")
        assert value == rhythm["frequency_hz"]


def test_asymmetry_is_clear_when_present_and_small_when_not() -> None:
    for seed in range(12):
        uneven = simulate(seed, "posterior_dominant_rhythm", "posterior_asymmetry").facts["posterior_rhythm"]
        even = simulate(seed, "posterior_dominant_rhythm").facts["posterior_rhythm"]
        assert uneven["asymmetry_percent"] >= 55
        assert even["asymmetry_percent"] <= 25
        assert uneven["lower_side"] in ("left", "right")


def test_generalized_slowing_lifts_delta_and_theta_everywhere() -> None:
    for seed in range(6):
        slow = band(simulate(seed, "generalized_slowing").data, RATE, 1, 7)
        plain = band(simulate(seed).data, RATE, 1, 7)
        assert np.median(slow) > 1.5 * np.median(plain)


def test_focal_slowing_is_largest_where_it_is_said_to_be() -> None:
    for seed in range(6):
        x = simulate(seed, "focal_slowing")
        event = x.events[0]
        slow = band(inside(x, event.start_seconds, event.end_seconds), x.sfreq, 1, 5)
        assert slow[rows(x, event.channels[0])[0]] > 1.5 * np.median(slow)


@pytest.mark.parametrize("name", ["focal_epileptiform_discharges", "generalized_spike_wave"])
def test_discharges_stand_out_of_the_background(name: str) -> None:
    for seed in range(6):
        x = simulate(seed, name)
        row = rows(x, x.events[0].channels[0])[0]
        quiet = np.median(np.abs(x.data[row] - np.median(x.data[row]))) * 1.48
        for event in x.events:
            piece = inside(x, event.start_seconds, event.end_seconds)[row]
            assert np.ptp(piece) > 4 * quiet, (seed, event)


def test_seizure_grows_and_slows() -> None:
    for seed in range(8):
        x = simulate(seed, "seizure", seconds=90)
        (event,) = x.events
        row = rows(x, event.channels[0])[0]
        piece = inside(x, event.start_seconds, event.end_seconds)[row].astype(float)
        first, last = np.array_split(piece, 3)[::2]
        assert np.std(last) > 1.4 * np.std(first)

        assert centroid(last, x.sfreq) < centroid(first, x.sfreq)
        assert event.end_seconds - event.start_seconds >= 10


def test_burst_suppression_is_mostly_flat_with_bursts() -> None:
    for seed in range(6):
        x = simulate(seed, "burst_suppression")
        row = rows(x, "Cz", "C3")[0] if x.reference != "Cz" else rows(x, "F3")[0]
        seconds = x.data[row][: int(len(x.data[row]) // RATE * RATE)].reshape(-1, int(RATE))
        spread = np.ptp(seconds - seconds.mean(axis=1, keepdims=True), axis=1)
        assert np.percentile(spread, 25) < 25
        assert np.percentile(spread, 95) > 4 * np.percentile(spread, 25)


def test_spindles_and_drowsiness() -> None:
    x = simulate(2, "sleep_spindles")
    spindle = x.events[0]
    middle = inside(x, spindle.start_seconds, spindle.end_seconds)[rows(x, "C3", "C4")].astype(float)
    bins, power = welch(middle, x.sfreq, nperseg=middle.shape[1], nfft=1024)
    use = (bins > 9) & (bins < 20)
    assert 11 <= bins[use][np.argmax(power.mean(axis=0)[use])] <= 15.5
    for seed in range(6):
        theta = band(simulate(seed, "drowsiness").data, RATE, 3, 7)
        plain = band(simulate(seed).data, RATE, 3, 7)
        assert np.percentile(theta, 75) > 1.2 * np.percentile(plain, 75), seed


def test_artifacts_lie_where_they_belong() -> None:
    blink = simulate(1, "eye_blink_artifact")
    event = blink.events[0]
    reach = np.ptp(inside(blink, event.start_seconds, event.end_seconds), axis=1)
    assert blink.names[int(np.argmax(reach))] in ("Fp1", "Fp2", "Fpz", "AF7", "AF3", "AF8", "AF4", "AFz")
    muscle = simulate(1, "muscle_artifact")
    event = max(muscle.events, key=lambda e: e.end_seconds - e.start_seconds)
    during = band(inside(muscle, event.start_seconds, event.end_seconds), RATE, 20, 60)
    assert during.max() > 2.5 * np.median(band(simulate(1).data, RATE, 20, 60))
    pop = simulate(1, "electrode_artifact")
    event = pop.events[0]
    piece = inside(pop, max(0, event.start_seconds - 0.2), event.end_seconds)
    steps = np.abs(np.diff(piece, axis=1)).max(axis=1)
    assert pop.names[int(np.argmax(steps))] == event.channels[0] or pop.reference in (
        "average",
        event.channels[0],
    )


def test_mains_line_is_visible_only_when_it_is_a_finding() -> None:
    def ratio(x: Simulation) -> float:
        bins, power = welch(x.data.astype(float), x.sfreq, nperseg=int(2 * x.sfreq))
        line = (np.abs(bins - x.line_frequency) <= 0.5).nonzero()[0]
        near = (np.abs(bins - x.line_frequency) >= 2) & (np.abs(bins - x.line_frequency) <= 4)
        return float(np.median(power[:, line].max(axis=1) / np.median(power[:, near], axis=1)))

    for seed in range(8):
        assert ratio(simulate(seed, "mains_noise")) > 15
        assert ratio(simulate(seed)) < 5


def test_bad_electrodes_are_flat_clipped_or_loud() -> None:
    for seed in range(10):
        x = simulate(seed, "bad_electrode")
        others = np.median(np.std(x.data, axis=1))
        for name in x.events[0].channels:
            channel = x.data[x.names.index(name)]
            clipped = np.mean(np.abs(channel) >= 0.999 * np.abs(channel).max())
            assert np.ptp(channel) == 0 or clipped > 0.02 or np.std(channel) > 5 * others


def test_labels_are_spelled_as_in_the_files_they_imitate() -> None:
    labels = {style.label("Fp1") for style in STYLES}
    assert {"Fp1", "EEG Fp1", "EEG Fp1-Ref", "EEG FP1-REF", "EEG FP1-LE", "Fp1."} <= labels
    assert STYLES[-1].label("FC5") == "Fc5." and STYLES[-1].label("T3") == "T7.."


def test_electrodes_lie_on_a_mirrored_sphere() -> None:
    for style in STYLES:
        xyz = np.array([position(name) for name in style.names])
        np.testing.assert_allclose(np.linalg.norm(xyz, axis=1), 1.0, rtol=1e-12)
    assert position("T3")[0] == -position("T4")[0] == pytest.approx(-1, abs=0.01)
    assert position("Fp1")[1] > 0.9 and position("O2")[1] < -0.9 and position("Cz")[2] == 1


def test_edf_gives_the_samples_back(tmp_path) -> None:
    x = simulate_eeg(11)
    write_edf(x, tmp_path / "a.edf")
    raw = mne.io.read_raw_edf(tmp_path / "a.edf", preload=True, verbose="error")
    assert raw.info["sfreq"] == x.sfreq
    assert tuple(raw.ch_names[: len(x.labels)]) == x.labels
    back = raw.get_data()[: len(x.labels), : x.data.shape[1]] * 1e6
    step = 2 * np.abs(x.data).max(axis=1, keepdims=True) / 65535
    assert (np.abs(back - x.data) <= np.maximum(2 * step, 0.02)).all()
    assert [path.name for path in tmp_path.iterdir()] == ["a.edf"]


def test_edf_of_a_broken_second_is_padded(tmp_path) -> None:
    x = simulate_eeg(12, duration_seconds=20.5, sfreq=200)
    write_edf(x, tmp_path / "a.edf")
    raw = mne.io.read_raw_edf(tmp_path / "a.edf", verbose="error")
    assert raw.n_times == 21 * 200


def test_edf_where_a_file_stands_for_a_folder_is_one_sentence(tmp_path) -> None:
    (tmp_path / "no").write_text("x")
    with pytest.raises(InputError, match="cannot be written"):
        write_edf(simulate_eeg(1, duration_seconds=10), tmp_path / "no" / "a.edf")


def test_corpus_is_a_manifest_with_the_truth(tmp_path) -> None:
    manifest = simulate_corpus(4, 9, tmp_path / "c")
    lines = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    assert len(lines) == 4 and len({line["patient"] for line in lines}) == 4
    for i, line in enumerate(lines):
        assert set(line) >= {"recording", "patient", "history", "sections", "findings", "split"}
        assert (manifest.parent / line["recording"]).is_file()
        assert len(line["findings"]) == len(EEG_NAMES) and len(line["sections"]) == 8
        assert line["split"] == split_of(line["patient"])
        assert line["sections"] == simulate_eeg(9 * 1_000_003 + i).sections
    assert not list(manifest.parent.glob(".*"))
    again = simulate_corpus(4, 9, tmp_path / "d")
    assert again.read_text(encoding="utf-8") == manifest.read_text(encoding="utf-8")
    test = simulate_corpus(2, 1, tmp_path / "e", split="test")
    assert all(json.loads(line)["split"] == "test" for line in test.read_text().splitlines())


def test_corpus_into_a_file_is_refused(tmp_path) -> None:
    (tmp_path / "c").write_text("x")
    with pytest.raises(InputError, match="cannot be written"):
        simulate_corpus(1, 0, tmp_path / "c")


def test_splits_are_roughly_80_10_10() -> None:
    counts = np.unique([split_of(f"sim-1-{i:05d}") for i in range(2000)], return_counts=True)
    shares = dict(zip(counts[0].tolist(), (counts[1] / 2000).tolist(), strict=True))
    assert shares["train"] == pytest.approx(0.8, abs=0.03)
    assert shares["val"] == pytest.approx(0.1, abs=0.03)


@pytest.mark.untraced
def test_each_finding_is_neither_rare_nor_everywhere() -> None:
    count = 250
    shares = np.zeros(len(EEG_NAMES))
    for seed in range(count):
        shares += [f["present"] for f in simulate_eeg(50_000 + seed, duration_seconds=60, sfreq=200).findings]
    shares /= count
    assert (shares[1:] > 0.04).all() and (shares[1:] < 0.4).all(), dict(zip(EEG_NAMES, shares, strict=True))
    assert 0.4 < shares[0] < 0.8


def test_the_shortest_recording_has_room_for_chewing() -> None:
    # seed 4 chews, for 5 s at least, and 0.4 of 10 s are less
    assert simulate_eeg(4, duration_seconds=10, sfreq=200).data.shape[1] == 2000


def test_the_manifest_of_other_recordings_stays(tmp_path) -> None:
    manifest = simulate_corpus(2, 3, tmp_path, duration_seconds=10)
    before = manifest.read_bytes()
    assert simulate_corpus(2, 3, tmp_path, duration_seconds=10).read_bytes() == before
    for count, seed, modality in ((2, 4, "eeg"), (1, 3, "eeg"), (2, 3, "ecg")):
        with pytest.raises(InputError, match=r"manifest\.jsonl: lists sim-3-0000\d\.edf, which would not"):
            simulate_corpus(count, seed, tmp_path, modality=modality, duration_seconds=10)
    assert manifest.read_bytes() == before and len(list(tmp_path.glob("sim-*"))) == 2
    manifest.write_text("my notes")
    with pytest.raises(InputError, match="is there and is no manifest"):
        simulate_corpus(2, 3, tmp_path)
    assert manifest.read_text() == "my notes"
