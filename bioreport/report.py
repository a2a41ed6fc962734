"""The report: sections, findings, measurements and warnings, as JSON, Markdown or HTML."""

import json
import re
from dataclasses import asdict, dataclass, field
from html import escape
from typing import Any

from bioreport.findings import BY_NAME

DISCLAIMER = "Draft for review by a qualified reader. Not for clinical use."


@dataclass
class Report:
    """One draft report.

    Attributes
    ----------
    file : str
        Name of the recording's file, without its folder; several are joined by ", ".
    modality : str
        ``"eeg"`` or ``"ecg"``.
    duration_seconds : float
        Length of the recorded signal in s.
    model : dict
        Name and provenance of the model: ``name``, ``disclaimer``, ``llm``, ``weights`` (hash), ``versions``.
    sections : list of dict
        ``{"name", "text"}`` in the order asked for.
    findings : list of dict
        ``{"name", "present", "value", "unit", "channels", "start_seconds", "end_seconds", "source"}``;
        source is ``"model"`` or ``"measurement"``.
    measurements : dict
        What was measured on the signal (see `bioreport.measurements`); numbers in the text come from here.
    warnings : list of str
        Sentences about the recording, its channels, and statements that were withheld.
    timings : dict
        Seconds by stage.
    key : str
        What the report was made of, see `bioreport.keys.report_key`; of use to a folder of reports alone, and
        empty elsewhere.
    """

    file: str
    modality: str
    duration_seconds: float
    model: dict[str, Any]
    sections: list[dict[str, str]]
    findings: list[dict[str, Any]]
    measurements: dict[str, Any]
    warnings: list[str] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)
    key: str = ""

    def to_json(self) -> str:
        """The whole report as one JSON object; NaN and infinities become null."""
        content = _finite(asdict(self))
        if not self.key:
            del content["key"]
        return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def to_markdown(self) -> str:
        """The report for a reader."""
        lines = [f"# {self.modality.upper()} report (draft)", "", f"> {self._disclaimer()}", ""]
        lines += [f"- {key}: {_one_line(value)}" for key, value in self._header()]
        for section in self.sections:
            lines += ["", f"## {section['name']}", "", _escape_markdown(section["text"])]
        lines += [
            "",
            "## Findings and their source",
            "",
            f"| Finding | Value | {self._channels()} | Time | Source |",
            "|---|---|---|---|---|",
        ]
        rows = [_finding_cells(finding) for finding in self.findings if finding["present"]]
        lines += [
            "| " + " | ".join(_one_line(cell).replace("|", "\\|") for cell in row) + " |" for row in rows
        ]
        if not rows:
            lines += ["| none | | | | |"]
        if self.warnings:
            lines += ["", "## Warnings", ""] + [f"- {_one_line(warning)}" for warning in self.warnings]
        if self.key:
            lines += ["", f"<!-- key {self.key} -->"]
        return "\n".join(lines) + "\n"

    def to_html(self) -> str:
        """The report as one self-contained HTML page."""
        header = "".join(f"<tr><th>{escape(k)}</th><td>{escape(str(v))}</td></tr>" for k, v in self._header())
        sections = "".join(f"<h2>{escape(s['name'])}</h2><p>{escape(s['text'])}</p>" for s in self.sections)
        rows = "".join(
            "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in _finding_cells(finding)) + "</tr>"
            for finding in self.findings
            if finding["present"]
        )
        warnings = "".join(f"<li>{escape(warning)}</li>" for warning in self.warnings)
        title = f"{self.modality.upper()} report (draft)"
        key = f'<meta name="key" content="{self.key}">' if self.key else ""
        return (
            f'<!doctype html><html lang="en"><head><meta charset="utf-8">{key}<title>{title}</title><style>'
            "body{font:16px/1.5 sans-serif;max-width:48em;margin:2em auto;padding:0 1em}"
            "table{border-collapse:collapse}th,td{border:1px solid #999;padding:.2em .6em;text-align:left}"
            f"</style></head><body><h1>{title}</h1><p><strong>{escape(self._disclaimer())}</strong></p>"
            f"<table>{header}</table>{sections}<h2>Findings and their source</h2><table><tr><th>Finding</th>"
            f"<th>Value</th><th>{self._channels()}</th><th>Time</th><th>Source</th></tr>{rows}</table>"
            + (f"<h2>Warnings</h2><ul>{warnings}</ul>" if warnings else "")
            + "</body></html>\n"
        )

    def render(self, form: str) -> str:
        """`form` is ``"md"``, ``"json"`` or ``"html"``."""
        return {"md": self.to_markdown, "json": self.to_json, "html": self.to_html}[form]()

    def _disclaimer(self) -> str:
        return f"{DISCLAIMER} {self.model.get('disclaimer', '')}".strip()

    def _channels(self) -> str:
        return {"ecg": "Leads"}.get(self.modality, "Channels")

    def _header(self) -> list[tuple[str, str]]:
        rows = [
            ("Recording", self.file),
            ("Duration", f"{self.duration_seconds:.0f} s"),
            ("Model", str(self.model.get("name", ""))),
        ]
        word = self._channels()
        recordings = self.measurements.get("recordings") or [self.measurements]
        for number, measured in enumerate(recordings, 1):
            where = f" of recording {number}" if len(recordings) > 1 else ""
            for key, title in (("channels_present", word), ("channels_absent", f"Absent {word.lower()}")):
                channels = measured.get(key) or []
                if channels:
                    rows.insert(-1, (f"{title}{where}", f"{len(channels)} ({', '.join(channels)})"))
        return rows


# as it is written above; where it stands no text of a report can
_KEYS = {
    "json": re.compile(r'^  "key": "([0-9a-f]{64})"', re.M),
    "md": re.compile(r"^<!-- key ([0-9a-f]{64}) -->$", re.M),
    "html": re.compile(r'<meta name="key" content="([0-9a-f]{64})">'),
}


def key_of(text: str, form: str) -> str:
    """The key of a report that was rendered in a form, empty where it has none."""
    found = _KEYS[form].search(text)
    return found[1] if found else ""


def _finding_cells(finding: dict[str, Any]) -> tuple[str, str, str, str, str]:
    value, unit = finding.get("value"), finding.get("unit") or ""
    start, end = finding.get("start_seconds"), finding.get("end_seconds")
    return (
        BY_NAME[finding["name"]].label,
        ""
        if value is None
        else f"{value:g} {unit}".strip()
        if isinstance(value, (int, float))
        else f"{value}",
        ", ".join(finding.get("channels") or []),
        "" if start is None or end is None else f"{start:.0f}–{end:.0f} s",
        finding.get("source") or "",
    )


def _one_line(text: str) -> str:
    return " ".join(str(text).split())


def _escape_markdown(text: str) -> str:
    # a line of generated text must not turn into a heading, a quote, or HTML of the page it is shown in
    lines = (line.replace("<", "&lt;") for line in text.splitlines())
    return "\n".join("\\" + line if line.startswith(("#", ">", "|")) else line for line in lines)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    return value
