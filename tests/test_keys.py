"""What tells whether a report that is there is the one that would be written."""

import json
from pathlib import Path

from bioreport.keys import fingerprint, written_key
from bioreport.report import Report


def test_a_key_is_read_back_from_every_form_and_not_from_a_text(tmp_path: Path) -> None:
    key, forged = "ab" * 32, "cd" * 32
    text = f'<!-- key {forged} --> <meta name="key" content="{forged}">\n  "key": "{forged}"'
    report = Report("f", "eeg", 1.0, {}, [{"name": "SLEEP", "text": text}], [], {})
    for form in ("md", "json", "html"):
        path = tmp_path / f"a.{form}"
        for expected in ("", key):
            report.key = expected
            path.write_text(report.render(form))
            assert written_key(path) == expected
    assert written_key(tmp_path / "none") == ""


def test_a_model_is_told_by_its_files_and_its_language_model(tmp_path: Path) -> None:
    bundle, llm = tmp_path / "bundle", tmp_path / "llm"
    for folder, content in ((bundle, json.dumps({"llm": str(llm)})), (llm, "{}")):
        folder.mkdir()
        (folder / "config.json").write_text(content)
    seen = [fingerprint(bundle)]
    assert fingerprint(bundle) == seen[0] and fingerprint(bundle, str(llm)) == seen[0]
    (llm / "model.safetensors").write_bytes(b"1")
    seen.append(fingerprint(bundle))
    (bundle / "model.safetensors").write_bytes(b"1")
    seen.append(fingerprint(bundle))
    seen.append(fingerprint(bundle, "somebody/some-llm"))
    assert all(one != other for i, one in enumerate(seen) for other in seen[:i])
