"""Simulated ECG: truth that shows in the signal, limb leads that obey Einthoven, files that can be read."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import wfdb

from bioreport.cli import main
from bioreport.ecg.leads import LEADS
from bioreport.ecg.simulation import EcgSimulation, simulate_ecg, write_record
from bioreport.ecg.simulation.plan import check_findings, draw_findings
from bioreport.errors import InputError
from bioreport.findings import ECG_NAMES
from bioreport.manifest import read_manifest
from bioreport.simulation.corpus import simulate_corpus, split_of

RATE = 500


def clean(seed: int, *names: str) -> EcgSimulation:
    return simulate_ecg(seed, present=names, clean=True)


def shown(x: EcgSimulation) -> set[str]:
    return {finding["name"] for finding in x.findings if finding["present"]}


def value(x: EcgSimulation, name: str) -> float:
    return next(finding["value"] for finding in x.findings if finding["name"] == name)


def channels(x: EcgSimulation, name: str) -> list[str]:
    return next(finding["channels"] for finding in x.findings if finding["name"] == name)


def lead(x: EcgSimulation, name: str) -> np.ndarray:
    return x.data[LEADS.index(name)].astype(float)


def at(x: EcgSimulation, beat: int, ms: float) -> int:
    """Sample of a time after the onset of a beat's QRS."""
    return round((x.beats[beat].onset_seconds + ms / 1000) * RATE)


def strength(x: EcgSimulation) -> np.ndarray:
    """Largest deflection over all leads, mV."""
    return np.abs(x.data).max(axis=0)


def test_same_seed_same_samples_other_seed_others() -> None:
    first, again, other = simulate_ecg(3), simulate_ecg(3), simulate_ecg(4)
    np.testing.assert_array_equal(first.data, again.data)
    assert first.sections == again.sections and first.events == again.events
    assert first.findings == again.findings and first.history == again.history
    assert not np.array_equal(first.data, other.data)


def test_shapes_truth_and_events_agree() -> None:
    for seed in range(120):
        x = simulate_ecg(seed)
        assert x.data.shape == (12, 5000) and x.data.dtype == np.float32 and np.isfinite(x.data).all()
        assert np.abs(x.data).max() < 12
        assert tuple(finding["name"] for finding in x.findings) == ECG_NAMES
        assert shown(x) == {event.name for event in x.events}
        for event in x.events:
            assert 0 <= event.start_seconds < event.end_seconds <= 10
            assert set(event.channels) <= set(LEADS)
        for finding in x.findings:
            assert finding["present"] or not finding["channels"]
            assert finding["value"] is None or (finding["unit"] and np.isfinite(finding["value"]))


def test_limb_leads_obey_einthoven_to_the_last_microvolt() -> None:
    for seed in range(60):
        x = simulate_ecg(seed)
        if "lead_off" in shown(x):
            continue
        one, two, three, avr, avl, avf = np.rint(x.data[:6] * 1000).astype(int)
        np.testing.assert_array_equal(three, two - one)
        np.testing.assert_array_equal(2 * avr, -(one + two))
        np.testing.assert_array_equal(2 * avl, 2 * one - two)
        np.testing.assert_array_equal(2 * avf, 2 * two - one)


@pytest.mark.parametrize("name", ECG_NAMES)
def test_exactly_the_findings_asked_for_and_what_they_imply(name: str) -> None:
    for seed in range(3):
        assert shown(simulate_ecg(seed, present=[name])) == check_findings([name])


def test_no_finding_asked_for_is_a_normal_ecg() -> None:
    x = simulate_ecg(1, present=[])
    assert shown(x) == {"sinus_rhythm"}
    assert "ormal ECG" in x.sections["IMPRESSION/INTERPRETATION"]


@pytest.mark.parametrize(
    "names",
    [
        ("atrial_fibrillation", "sinus_rhythm"),
        ("bradycardia", "tachycardia"),
        ("asystole", "bradycardia"),
        ("left_bundle_branch_block", "st_elevation"),
        ("ventricular_tachycardia", "prolonged_qt"),
        ("atrial_fibrillation", "first_degree_av_block"),
        ("limb_lead_reversal", "left_axis_deviation"),
        ("prolonged_qt", "short_qt"),
        ("seizure",),
        ("no_such_finding",),
    ],
)
def test_impossible_findings_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError):
        simulate_ecg(0, present=names)


def test_too_short_is_refused() -> None:
    with pytest.raises(ValueError, match="too short"):
        simulate_ecg(0, duration_seconds=5)


# ---- times ----


def test_r_peaks_lie_where_the_beats_say() -> None:
    for seed in range(10):
        x = clean(seed)
        energy = np.square(x.data).sum(axis=0)
        for beat in x.beats[1:-1]:
            sample = round(beat.peak_seconds * RATE)
            near = energy[sample - 50 : sample + 51]
            assert abs(int(near.argmax()) - 50) <= 2
        # and nowhere else: nothing between two beats is as high as a quarter of the smaller
        outside = energy.copy()
        for beat in x.beats:
            sample = round(beat.peak_seconds * RATE)
            outside[max(0, sample - 40) : sample + 40] = 0
        peaks = [energy[round(beat.peak_seconds * RATE)] for beat in x.beats[1:-1]]
        assert outside[100:-100].max() < 0.9 * min(peaks)
        intervals = np.diff([beat.onset_seconds for beat in x.beats])
        assert x.facts["rate_per_minute"] == pytest.approx(60 / intervals.mean())


def test_pr_qrs_and_qt_can_be_measured_on_the_signal() -> None:
    for seed in range(12):
        names = ("bradycardia",) if seed % 2 else ("bradycardia", "first_degree_av_block")
        x = clean(seed, *names)
        size = strength(x)
        for beat in range(1, len(x.beats) - 1):
            onset, qrs = at(x, beat, 0), x.facts["qrs_ms"]
            # QRS: from the baseline of the PR segment until the ST segment
            visible = size > 0.03
            start = onset + int(np.argmax(visible[onset - 5 : onset + 25])) - 5
            assert abs(start - onset) * 2 <= 8
            end = at(x, beat, qrs)
            last = end - 20 + int(np.flatnonzero(visible[end - 20 : end + 5])[-1])
            assert abs(last - end) * 2 <= 10
            # P: the first deflection after T P rest
            before = size[at(x, beat, -x.facts["pr_ms"] - 60) : onset - 3]
            first = np.argmax(before > 0.008) * 2 - 60
            assert abs(first) <= 10, seed
            # QT by the tangent at the steepest fall of T in the lead that shows it best
            tail = x.data[:, at(x, beat, qrs + 60) : at(x, beat, x.facts["qt_ms"] + 80)].astype(float)
            row = tail[int(np.argmax(tail.max(axis=1)))]
            top = int(row.argmax())
            steepest = top + int(np.diff(row[top:]).argmin())
            slope = row[steepest + 1] - row[steepest]
            crossing = steepest + 0.5 - (row[steepest] + row[steepest + 1]) / 2 / slope
            assert abs(qrs + 60 + crossing * 2 - x.facts["qt_ms"]) <= 0.06 * x.facts["qt_ms"], seed


def test_rates_pauses_and_irregularity_are_what_the_names_say() -> None:
    def intervals(x: EcgSimulation) -> np.ndarray:
        return np.diff([beat.onset_seconds for beat in x.beats])

    for seed in range(8):
        assert clean(seed, "bradycardia").facts["rate_per_minute"] < 57
        assert clean(seed, "tachycardia").facts["rate_per_minute"] > 104
        assert 62 < clean(seed).facts["rate_per_minute"] < 97
        assert np.ptp(intervals(clean(seed))) < 0.1
        assert np.ptp(intervals(clean(seed, "sinus_arrhythmia"))) > 0.16
        paused = clean(seed, "pause")
        assert intervals(paused).max() > 2.2 and value(paused, "pause") == pytest.approx(
            intervals(paused).max(), abs=0.01
        )
        fibrillating = intervals(clean(seed, "atrial_fibrillation"))
        assert fibrillating.std() / fibrillating.mean() > 0.12
        assert intervals(clean(seed, "supraventricular_tachycardia")).std() < 0.01
        assert clean(seed, "supraventricular_tachycardia").facts["qrs_ms"] < 110
        assert clean(seed, "ventricular_tachycardia").facts["rate_per_minute"] > 120
        blocked = intervals(clean(seed, "second_degree_av_block"))
        if clean(seed, "second_degree_av_block").facts["block"] == "type II":
            assert blocked.max() / np.median(blocked) > 1.8
        assert np.median(intervals(clean(seed, "complete_av_block"))) > 0.9


def test_ectopic_beats_come_early_and_ventricular_ones_are_wide() -> None:
    for seed in range(8):
        for name, kind in (
            ("premature_atrial_contractions", "atrial"),
            ("premature_ventricular_contractions", "ventricular"),
        ):
            x = clean(seed, name)
            usual = np.median(np.diff([b.onset_seconds for b in x.beats if b.kind == "conducted"]))
            ectopic = [i for i, beat in enumerate(x.beats) if beat.kind == kind]
            assert ectopic
            for i in ectopic:
                if i == 0:
                    continue
                assert x.beats[i].onset_seconds - x.beats[i - 1].onset_seconds < 0.85 * usual
            events = [event for event in x.events if event.name == name]
            assert [event.start_seconds for event in events] == pytest.approx(
                [x.beats[i].onset_seconds for i in ectopic], abs=0.001
            )
        size = strength(x)
        for i in ectopic:
            later = slice(at(x, i, 115), at(x, i, 130))
            assert size[later].max() > 0.2


def test_atria_show_what_they_do() -> None:
    def atrial(x: EcgSimulation) -> tuple[np.ndarray, np.ndarray]:
        """Spectrum of V1 and aVF over all beats together, where no QRS and T is."""
        row = lead(x, "aVF")
        spectrum = np.abs(np.fft.rfft((row - row.mean()) * np.hanning(len(row)))) ** 2
        return np.fft.rfftfreq(len(row), 1 / RATE), spectrum

    for seed in range(6):
        x = clean(seed, "atrial_flutter", "tachycardia")
        hz, power = atrial(x)
        wave = 2 * x.facts["rate_per_minute"] / 60
        assert 3.5 < wave < 5.5
        assert power[np.abs(hz - wave) < 0.1].max() > 20 * np.median(power[(hz > 3) & (hz < 6)])
        x = clean(seed, "asystole")
        assert x.beats == () and x.facts["rate_per_minute"] is None and np.ptp(lead(x, "V3")) < 0.3
        chaos = clean(seed, "ventricular_fibrillation")
        hz, power = atrial(chaos)
        assert 2.5 < hz[power.argmax()] < 8 and np.ptp(lead(chaos, "II")) > 0.4


# ---- shapes ----


def test_axis_is_that_of_the_limb_leads() -> None:
    for seed in range(8):
        for name in ("", "left_axis_deviation", "right_axis_deviation", "left_anterior_fascicular_block"):
            x = clean(seed, *([name] if name else []))
            piece = slice(at(x, 1, 0), at(x, 1, x.facts["qrs_ms"]) + 1)
            axis = np.degrees(
                np.arctan2(lead(x, "aVF")[piece].sum() * 2 / np.sqrt(3), lead(x, "I")[piece].sum())
            )
            assert abs(axis - x.facts["axis_degrees"]) < 6
            if not name:
                assert -25 < axis < 85
            elif name == "right_axis_deviation":
                assert axis > 98
            else:
                assert axis < -31


def test_bundle_branch_blocks_look_like_themselves() -> None:
    for seed in range(8):
        right = clean(seed, "right_bundle_branch_block")
        qrs = right.facts["qrs_ms"]
        assert qrs >= 125 and value(right, "right_bundle_branch_block") == pytest.approx(qrs, abs=0.1)
        late = slice(at(right, 1, 0.6 * qrs), at(right, 1, qrs))
        assert lead(right, "V1")[late].max() > 0.25 and lead(right, "V6")[late].min() < -0.1
        left = clean(seed, "left_bundle_branch_block")
        qrs = left.facts["qrs_ms"]
        whole = slice(at(left, 1, 0), at(left, 1, 0.8 * qrs))
        assert qrs >= 130 and lead(left, "V1")[whole].min() < -0.4 and lead(left, "V1")[whole].max() < 0.12
        assert lead(left, "V6")[whole].min() > -0.1 and lead(left, "V6")[whole].max() > 0.4
        assert clean(seed).facts["qrs_ms"] < 105


def test_voltages() -> None:
    def reach(x: EcgSimulation, name: str) -> tuple[float, float]:
        piece = lead(x, name)[at(x, 1, -4) : at(x, 1, x.facts["qrs_ms"] + 4)]
        return float(piece.max()), float(-piece.min())

    for seed in range(8):
        for name, high in (("left_ventricular_hypertrophy", True), ("", False)):
            x = clean(seed, *([name] if name else []))
            sokolow = reach(x, "V1")[1] + max(reach(x, "V5")[0], reach(x, "V6")[0])
            assert (sokolow > 3.5) is high
        x = clean(seed, "low_qrs_voltage")
        assert max(sum(reach(x, name)) for name in LEADS[:6]) < 0.5
        x = clean(seed, "right_ventricular_hypertrophy")
        assert reach(x, "V1")[0] > max(0.7, reach(x, "V1")[1])


def level(x: EcgSimulation, name: str, ms: float = 40) -> float:
    beats = range(1, len(x.beats) - 1)
    return float(np.median([lead(x, name)[at(x, i, x.facts["qrs_ms"] + ms)] for i in beats]))


def test_st_changes_lie_in_the_leads_that_are_named() -> None:
    territories = set()
    for seed in range(25):
        x = clean(seed, "st_elevation_infarction", "st_depression")
        territories.add(x.facts["st_territory"])
        up, down = channels(x, "st_elevation"), channels(x, "st_depression")
        assert len(up) >= 2 and len(down) >= 2 and not set(up) & set(down)
        assert all(level(x, name) > 0.09 for name in up) and all(level(x, name) < -0.045 for name in down)
        assert value(x, "st_elevation") == pytest.approx(level(x, up[0]), abs=0.1)
        x = clean(seed, "st_depression")
        assert all(level(x, name) < -0.045 for name in channels(x, "st_depression"))
        normal = clean(seed)
        assert all(abs(level(normal, name)) < 0.05 for name in LEADS)
    assert territories == {"anterior", "inferior", "lateral", "septal"}


def test_t_waves_q_waves_and_qt() -> None:
    for seed in range(12):
        x = clean(seed, "t_wave_inversion")
        for name in channels(x, "t_wave_inversion"):
            tail = lead(x, name)[at(x, 1, 0.65 * x.facts["qt_ms"]) : at(x, 1, x.facts["qt_ms"])]
            assert tail.min() < -0.09 and tail.max() < 0.1
        x = clean(seed, "pathological_q_waves")
        for name in channels(x, "pathological_q_waves"):
            row = lead(x, name)[at(x, 1, 4) : at(x, 1, 36)]
            assert row.max() < 0.03 and row.min() < -0.08
        root = np.sqrt(60 / clean(seed, "prolonged_qt").facts["rate_per_minute"])
        assert clean(seed, "prolonged_qt").facts["qt_ms"] / root > 480
        x = clean(seed, "short_qt")
        assert value(x, "short_qt") < 345
        assert 360 < value(clean(seed), "prolonged_qt") < 445


# ---- faults ----


def test_lead_reversal_exchanges_limb_leads_only() -> None:
    for seed in range(12):
        x = clean(seed, "limb_lead_reversal")
        assert lead(x, "V5").max() > 0.3
        piece = slice(at(x, 1, 0), at(x, 1, 90))
        if x.facts["swapped"] == "left arm and right arm":
            assert lead(x, "I")[piece].sum() < 0
        else:
            assert lead(x, "II")[piece].sum() < 0


def test_faults_lie_where_they_are_said_to_be() -> None:
    def outside_beats(x: EcgSimulation, name: str) -> float:
        """RMS of what is fast, in mV, away from QRS."""
        row = np.diff(lead(x, name), 2)
        quiet = np.ones(len(row), bool)
        for i in range(len(x.beats)):
            quiet[max(0, at(x, i, -10)) : at(x, i, 130)] = False
        return float(np.sqrt(np.mean(row[quiet] ** 2)))

    for seed in range(10):
        quiet = simulate_ecg(seed, present=[])
        off = simulate_ecg(seed, present=["lead_off"])
        for name in LEADS:
            assert (np.ptp(lead(off, name)) == 0) == (name in channels(off, "lead_off"))
        noisy = simulate_ecg(seed, present=["noisy_lead"])
        assert channels(noisy, "noisy_lead")
        for name in LEADS:
            assert outside_beats(quiet, name) < 0.02
            if name in channels(noisy, "noisy_lead"):
                assert outside_beats(noisy, name) > 0.02
        wandering = simulate_ecg(seed, present=["baseline_wander"])
        smooth = np.ones(1000) / 1000
        drift = max(np.ptp(np.convolve(lead(wandering, name), smooth, "valid")) for name in LEADS)
        still = max(np.ptp(np.convolve(lead(quiet, name), smooth, "valid")) for name in LEADS)
        assert drift > 0.25 > 0.2 > still
        humming = simulate_ecg(seed, present=["mains_interference"])
        for x, seen in ((humming, True), (quiet, False)):
            hz = x.facts["mains_hz"] or 50
            tone = np.exp(-2j * np.pi * hz * np.arange(5000) / RATE)
            assert bool(max(abs(lead(x, name) @ tone) / 2500 for name in LEADS) > 0.03) is seen


# ---- reports ----

_WORDS = {
    "sinus_rhythm": r"\bsinus (?:rhythm|bradycardia|tachycardia)",
    "bradycardia": r"bradycardia",
    "tachycardia": r"tachycardia",
    "sinus_arrhythmia": r"sinus arrhythmia",
    "atrial_fibrillation": r"atrial fibrillation",
    "atrial_flutter": r"atrial flutter",
    "supraventricular_tachycardia": r"supraventricular tachycardia",
    "ventricular_tachycardia": r"(?<!supra)ventricular tachycardia",
    "ventricular_fibrillation": r"ventricular fibrillation",
    "asystole": r"asystole",
    "pause": r"\bpause",
    "paced_rhythm": r"paced rhythm",
    "premature_atrial_contractions": r"premature atrial|atrial premature",
    "premature_ventricular_contractions": r"premature ventricular|ventricular premature",
    "first_degree_av_block": r"first-degree av block",
    "second_degree_av_block": r"second-degree av block",
    "complete_av_block": r"complete av block|third-degree av block|complete heart block",
    "right_bundle_branch_block": r"(?<!incomplete )right bundle branch block",
    "incomplete_right_bundle_branch_block": r"incomplete right bundle branch block",
    "left_bundle_branch_block": r"left bundle branch block",
    "intraventricular_conduction_delay": r"intraventricular conduction delay",
    "left_anterior_fascicular_block": r"left anterior (?:fascicular block|hemiblock)",
    "left_axis_deviation": r"left axis deviation",
    "right_axis_deviation": r"right axis deviation",
    "left_ventricular_hypertrophy": r"left ventricular hypertrophy",
    "right_ventricular_hypertrophy": r"right ventricular hypertrophy",
    "low_qrs_voltage": r"low qrs voltage",
    "st_elevation_infarction": r"st-elevation (?:infarction|myocardial)",
    "st_elevation": r"st[ -]elevation",
    "st_depression": r"st depression",
    "t_wave_inversion": r"t-wave inversion|t waves are inverted",
    "pathological_q_waves": r"pathological q waves",
    "prolonged_qt": r"qt interval is prolonged|prolonged qt|qt prolongation",
    "short_qt": r"qt interval is short|short qt",
    "limb_lead_reversal": r"limb lead reversal",
    "lead_off": r"lead off|leads? [\w, ]+ (?:is|are) off",
    "noisy_lead": r"muscle artifact|noisy",
    "baseline_wander": r"baseline wander",
    "mains_interference": r"mains interference",
}


def stated(text: str) -> set[str]:
    sentences = [s for s in re.split(r"(?<=[.])\s", text.lower()) if not re.match(r"no |there is no ", s)]
    found = {name for name, words in _WORDS.items() if any(re.search(words, s) for s in sentences)}
    # a run is no tachycardia of the whole recording
    runs = r"non-sustained ventricular tachycardia|run[\w ]* of ventricular tachycardia"
    if not any("tachycardia" in re.sub(runs, "", s) for s in sentences):
        found.discard("tachycardia")
    return found


def test_reports_state_exactly_the_findings() -> None:
    assert set(_WORDS) == set(ECG_NAMES)
    for seed in range(250):
        x = simulate_ecg(seed, clean=True) if seed % 5 else simulate_ecg(seed)
        said = stated(" ".join(x.sections.values()))
        assert said == shown(x), (seed, x.sections)


def test_numbers_in_a_report_are_the_facts() -> None:
    for seed in range(60):
        x = simulate_ecg(seed)
        text = " ".join(x.sections.values())
        for number in re.findall(r"(\d+)/min", text):
            assert abs(int(number) - x.facts["rate_per_minute"]) <= 0.5
        for key, pattern in (
            ("pr_ms", r"PR[^.]*? (\d+) ms"),
            ("qtc_ms", r"QTc (\d+)"),
            ("qt_ms", r"QT (\d+)"),
        ):
            for number in re.findall(pattern, text):
                assert abs(int(number) - x.facts[key]) <= 0.5


# ---- prevalence and files ----


def test_each_finding_is_neither_rare_nor_everywhere_and_normal_ecgs_are_common() -> None:
    count = 3000
    rng = np.random.default_rng(5)
    drawn = [draw_findings(rng) for _ in range(count)]
    shares = {name: sum(name in present for present in drawn) / count for name in ECG_NAMES}
    assert 0.5 < shares.pop("sinus_rhythm") < 0.8
    assert all(0.015 < share < 0.3 for share in shares.values()), shares
    faults = {"noisy_lead", "baseline_wander", "mains_interference", "lead_off", "limb_lead_reversal"}
    assert sum(present - faults == {"sinus_rhythm"} for present in drawn) > 0.1 * count


def test_record_gives_the_samples_and_beats_back(tmp_path: Path) -> None:
    x = simulate_ecg(11, present=["premature_ventricular_contractions"])
    write_record(x, tmp_path / "a.hea")
    record = wfdb.rdrecord(str(tmp_path / "a"))
    assert record.fs == 500 and tuple(record.sig_name) == LEADS and set(record.units) == {"mV"}
    assert set(record.fmt) == {"16"}
    np.testing.assert_allclose(record.p_signal.T, x.data, atol=1e-6)
    beats = wfdb.rdann(str(tmp_path / "a"), "atr")
    assert beats.sample.tolist() == [round(beat.peak_seconds * 500) for beat in x.beats]
    assert "V" in beats.symbol
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.atr", "a.dat", "a.hea"]
    header = (tmp_path / "a.hea").read_text()
    assert "Age" in header and not any(name in header for name in ECG_NAMES)


def test_record_where_a_file_stands_for_a_folder_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "no").write_text("x")
    with pytest.raises(InputError, match="cannot be written"):
        write_record(simulate_ecg(1), tmp_path / "no" / "a.hea")


def test_corpus_is_a_manifest_with_the_truth(tmp_path: Path) -> None:
    manifest = simulate_corpus(4, 9, tmp_path / "c", modality="ecg")
    lines = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    entries = read_manifest(manifest)
    assert len(entries) == 4 and all(entry.recordings[0].is_file() for entry in entries)
    for i, line in enumerate(lines):
        assert len(line["findings"]) == len(ECG_NAMES) and line["recording"].endswith(".hea")
        assert line["split"] == split_of(line["patient"])
        assert line["sections"] == simulate_ecg(9 * 1_000_003 + i).sections
    again = simulate_corpus(4, 9, tmp_path / "d", modality="ecg")
    assert again.read_text(encoding="utf-8") == manifest.read_text(encoding="utf-8")
    for file in (tmp_path / "c").iterdir():
        assert file.read_bytes() == (tmp_path / "d" / file.name).read_bytes()


def test_command_line_writes_records_and_their_truth(tmp_path: Path) -> None:
    assert main(["simulate", "ecg", "-n", "2", "--seed", "3", "-o", str(tmp_path / "c"), "-q"]) == 0
    entries = read_manifest(tmp_path / "c" / "manifest.jsonl")
    assert [entry.recordings[0].name for entry in entries] == ["sim-3-00000.hea", "sim-3-00001.hea"]
    assert all(len(entry.findings or ()) == len(ECG_NAMES) for entry in entries)


def test_a_longer_recording_keeps_its_rhythm() -> None:
    x = simulate_ecg(2, duration_seconds=60, present=["atrial_fibrillation"])
    assert x.data.shape == (12, 30_000) and len(x.beats) > 50
    rate = 60 * (len(x.beats) - 1) / (x.beats[-1].onset_seconds - x.beats[0].onset_seconds)
    assert x.facts["rate_per_minute"] == pytest.approx(rate)
