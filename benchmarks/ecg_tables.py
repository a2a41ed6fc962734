"""The tables of `ecg_tokenizers.py`'s results, for `table.py`."""

from typing import Any

from bioreport.ecg.classifier import GROUPS


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _books(row: dict[str, Any]) -> str:
    return f"{row['stages']} × {row['codewords']}"


def _real(result: dict[str, Any]) -> str:
    """Which real records were measured."""
    records = result["real_records"]
    return f"{records}." if isinstance(records, str) else f"{len(records)} real 12-lead records."


def used(result: dict[str, Any]) -> list[str]:
    """Codewords used, on simulated and real ECGs."""
    lines = [
        "### Codewords of ECG-Tok's tokenizer that are used",
        "",
        "| quantizer | codebooks | simulated | real | simulated, no reset | real, no reset |",
        "|---|---|---|---|---|---|",
    ]
    for row in (row for row in result["tokenizers"] if row["reset"]):
        without = next(
            other
            for other in result["tokenizers"]
            if other["quantizer"] == row["quantizer"] and not other["reset"]
        )
        places = [one[where] for one in (row, without) for where in ("held_out", "real")]
        cells = [_number(place and place["pooled_utilisation"], ".1%") for place in places]
        lines.append(f"| {row['quantizer']} | {_books(row)} | {' | '.join(cells)} |")
    return [
        *lines,
        "",
        f"Share of 512 codewords chosen at least once in {result['held_out']} simulated ECGs held out and in "
        f"real ones, after {result['steps']} steps of {result['batch_size']} simulated ECGs out of "
        f"{result['records']}; the same autoencoder, data and batches. Real: {_real(result)}",
    ]


def measured(result: dict[str, Any]) -> list[str]:
    """Error and perplexity beside utilisation, by stage."""
    lines = [
        "### Tokenizers",
        "",
        "| quantizer | codebooks | reset | on | error, mV | used | used by stage | perplexity | by stage | "
        "s a step |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in result["tokenizers"]:
        for where, title in (("held_out", "simulated"), ("real", "real")):
            if row[where] is None:
                continue
            found = row[where]
            stages = ", ".join(f"{share:.1%}" for share in found["utilisation"])
            perplexities = ", ".join(f"{one:.0f}" for one in found["perplexity"])
            lines.append(
                f"| {row['quantizer']} | {_books(row)} | {'yes' if row['reset'] else 'no'} | {title} | "
                f"{found['mean_absolute_error_mv']:.4f} | {found['pooled_utilisation']:.1%} | {stages} | "
                f"{found['pooled_perplexity']:.0f} | {perplexities} | {row['processor_seconds_a_step']:.2f} |"
            )
    return lines


def classified(result: dict[str, Any]) -> list[str]:
    """Micro-AUC by group."""
    found = result["classification"]["rows"]
    groups = [group for group in ("all", *GROUPS) if group in found[0]["micro_auc"]]
    lines = [
        "### Findings from frozen vectors",
        "",
        f"| vectors of | {' | '.join(groups)} |",
        "|---|" + "---|" * len(groups),
    ]
    for row in found:
        cells = [_number(row["micro_auc"][group], ".3f") for group in groups]
        lines.append(f"| {row['quantizer']} | {' | '.join(cells)} |")
    return [
        *lines,
        "",
        f"Micro-averaged area under the ROC curve of {result['classification']['labels']} simulated findings "
        f"on {result['held_out']} records held out; the tokenizers are those with reset.",
    ]


def written(result: dict[str, Any]) -> list[str]:
    """ECG-Byte beside ECG-Tok."""
    found = result["reports"]
    pairs = found["byte_pairs"]
    lines = [
        "### ECG-Byte and ECG-Tok before the same language model",
        "",
        "| | signal tokens | loss held out, nats a token | finding F1 | s a step |",
        "|---|---|---|---|---|",
    ]
    for row in found["ways"]:
        lines.append(
            f"| {row['way']} | {row['signal_tokens']:.0f} | {row['held_out_loss']:.4f} | "
            f"{row['text_f1']:.3f} | {row['processor_seconds_a_step']:.2f} |"
        )
    return [
        *lines,
        "",
        f"Impressions alone: {found['steps']} steps of {found['batch_size']} records on all weights, from "
        f"the same language model ({found['language_model']['parameters'] / 1e6:.1f} M, "
        f"{found['language_model']['origin']}). ECG-Byte has {pairs['merges']:,} merges and "
        f"reads the first {pairs['seconds_read']:.0f} s, one of its two published lengths: all 10 s are "
        f"{pairs['symbols_of_10_s']:,.0f} symbols, of which the published limit of 1,000 would leave the "
        f"first leads. F1 by the lexicon, which reads {found['text_f1_of_the_references']:.3f} out of the "
        "reference impressions.",
    ]
