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


def corpus_encode(result: dict[str, Any]) -> list[str]:
    """Both chains, in both settings of the allocator."""
    lines = [
        f"### {result['recordings']} × {result['recording_seconds']:,} s to tokens on disk",
        "",
        "| chain | allocator | recordings/h | beside CELM's | MB on disk | of CELM's bytes |",
        "|---|---|---|---|---|---|",
    ]
    for found in result["rows"]:
        for name, row in found["chains"].items():
            faster = f"{row['speedup']:.2f} ×" if "speedup" in row else ""
            smaller = f"1/{row['bytes_ratio']:.0f}" if "bytes_ratio" in row else ""
            lines.append(
                f"| {name} | `{found['malloc']}` | {row['recordings_per_hour']:.0f} | {faster} | "
                f"{row['bytes'] / 1e6:.1f} | {smaller} |"
            )
    error = max(found["bfloat16_tokens_rms_difference"] for found in result["rows"])
    return [
        *lines,
        "",
        "CBraMod at its published size, one process a chain, in turns recording by recording; `encode "
        "--workers` is the whole command, after them in the same run: from start to end, and less what it "
        "takes for a short recording a process. By "
        f"bfloat16, `--dtype auto`'s choice on this processor, tokens move by {error:.1%} of their spread.",
    ]


def corpus_memory(result: dict[str, Any]) -> list[str]:
    """Peaks by the number of recordings."""
    lines = [
        f"### Peak memory of `encode`, recordings of {result['recording_seconds']:g} s",
        "",
        "| recordings | the writer | a worker |",
        "|---|---|---|",
    ]
    for row in result["rows"]:
        lines.append(f"| {row['recordings']:,} | {row['writer_mib']:.0f} MiB | {row['worker_mib']:.0f} MiB |")
    return lines


def kills(result: dict[str, Any]) -> list[str]:
    """A row for each command."""
    lines = [
        "### SIGKILL at random instants",
        "",
        "| command | kills | after the first write | files compared | the same as without kills |",
        "|---|---|---|---|---|",
    ]
    for name, row in result["rows"].items():
        lines.append(
            f"| `{name}` ({row['what']}) | {row['kills']} | {row['kills_after_the_first_write']} | "
            f"{row['files']} | {'yes' if row['identical'] else 'no'} |"
        )
    return lines
