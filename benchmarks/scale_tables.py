"""Tables on many recordings: what tokens cost and what they are worth."""

from typing import Any


def duration(seconds: float) -> str:
    """Seconds in the unit that reads best."""
    if seconds < 120:
        return f"{seconds:.{0 if seconds >= 10 else 1}f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def arithmetic(result: dict[str, Any]) -> list[str]:
    """The tables of a result."""
    files, assumed = result["files"], result["assumed"]
    lines = [
        f"### {result['hours']:,} h of EEG, by arithmetic",
        "",
        "No GPU was timed. What the host does is measured; the rest is "
        f"{assumed['share_of_data_sheet']:.0%} of an H100's data sheet at the operations counted "
        f"({result['encoder_flops'] / 1e9:.2f} GFLOP an epoch). A server has {assumed['cores']} cores and "
        f"{assumed['read_bytes_a_second'] / 1e9:.2f} GB/s of disk for each GPU. "
        f"{files['recordings_bytes'] / 1e9:,.0f} GB of recordings become "
        f"{files['tokens_bytes'] / 1e9:.1f} GB of tokens.",
        "",
        "| H100s | reading | filtering and measuring | CBraMod | saturates first |",
        "|---|---|---|---|---|",
    ]
    for row in result["encoding"]:
        times = [duration(row["seconds"][part]) for part in ("reading", "host", "encoder")]
        lines.append(f"| {row['devices']} | {' | '.join(times)} | {row['saturates_first']} |")
    lines += [
        "",
        f"CELM's training on these tokens ({assumed['epochs']} epochs, "
        f"{assumed['trained_share']:.0%} of the reports, one an hour, Qwen3-4B frozen, "
        f"{assumed['prompt_tokens']} tokens of prompt and {assumed['response_tokens']} of report, "
        f"batch {assumed['batch']}):",
        "",
        "| H100s | at the recipe's batch | with a report for each GPU | saturates first |",
        "|---|---|---|---|",
    ]
    for row in result["training"]:
        times = [duration(row[key]) for key in ("seconds", "seconds_with_a_report_for_each")]
        lines.append(f"| {row['devices']} | {' | '.join(times)} | {row['saturates_first']} |")
    return lines


def training(result: dict[str, Any]) -> list[str]:
    """What tokens and packing save, in both settings of the allocator."""
    lines = [
        "### Training",
        "",
        "| | allocator | recordings/s | beside it | times | wanted |",
        "|---|---|---|---|---|---|",
    ]
    for setting, found in result["malloc"].items():
        for compared in found.values():
            ours, other = compared["rows"]
            lines.append(
                f"| {ours['way']} | `{setting}` | {ours['recordings_per_second']:.1f} | {other['way']}: "
                f"{other['recordings_per_second']:.2f} | {compared['speedup']:.1f} × | "
                f"≥ {compared['target']:g} × |"
            )
    first = next(iter(result["malloc"].values()))
    skewed, alike = first["packed"], first["tokens"]
    return [
        *lines,
        "",
        "A linear-attention projector before a random Qwen3 of two layers; forward, backward and AdamW. "
        f"From tokens: {alike['recordings']} recordings of {alike['epochs_of_a_recording']} epochs. Packed: "
        f"{len(skewed['lengths'])} of {min(skewed['lengths'])} to {max(skewed['lengths'])} epochs, "
        f"{skewed['batch_size']} a batch.",
    ]


def token_variants(result: dict[str, Any]) -> list[str]:
    """A row for each variant."""
    epochs = result["recording_seconds"] / 10
    lines = [
        "### Embeddings a report needs",
        "",
        "| projector | embeddings of a session | parameters | loss held out, nats a token | finding F1 |",
        "|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        lines.append(
            f"| {row['variant']} | {row['embeddings']:.0f} | {row['parameters'] / 1e3:,.0f} k | "
            f"{row['held_out_loss']:.4f} | {row['text_f1']:.3f} |"
        )
    return [
        *lines,
        "",
        f"Impressions alone, no facts in the prompt, sessions of {epochs:.0f} epochs: "
        f"{result['steps']} steps of {result['batch_size']} on {result['trained_on']} simulated EEGs, judged "
        f"on {result['judged_on']} others. The texts are not grounded.",
    ]


def many(result: dict[str, Any]) -> list[str]:
    """Reports of many recordings: each way, the same command once more, memory."""
    speed = result["speed"]
    lines = [
        f"### Reports of {speed['recordings']} short recordings",
        "",
        "Imports and model among the time, the median of the rounds; peak of the process that writes.",
        "",
        "| way | time | reports/h | × one a file | padding | peak |",
        "|---|---|---|---|---|---|",
    ]
    for row in speed["rows"]:
        padding, peak = row.get("padded_share"), row.get("peak_mib")
        lines.append(
            f"| {row['way']} | {row['seconds']:.1f} s | {row['reports_per_hour']:,.0f} "
            f"| {row['times_one_by_one']:.1f} | {'' if padding is None else f'{padding:.1%}'} "
            f"| {'' if peak is None else f'{peak:.0f} MiB'} |"
        )
    again = speed["again"]
    texts = "the same" if speed["texts_are_the_same"] else "NOT the same"
    lines += [
        "",
        f"Texts of all ways are {texts}. The same command once more "
        f"{'keeps all' if again['all_kept'] else 'does NOT keep all'} in "
        f"{again['seconds_after_imports']:.2f} s after the imports.",
        "",
        "| ECGs of 10 s in one command | peak | time |",
        "|---|---|---|",
    ]
    lines += [
        f"| {row['recordings']:,} | {row['peak_mib']:.0f} MiB | {duration(row['seconds'])} |"
        for row in result["memory"]
    ]
    return lines
