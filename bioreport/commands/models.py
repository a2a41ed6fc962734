"""`convert` and `doctor`: weights from elsewhere, and what is installed."""

import argparse

from bioreport.commands.console import quiet_libraries, say


def convert(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Published weights to a model's folder, or that to the Hub's layout."""
    if options.license is not None and options.kind != "hub":
        parser.error("--license is for convert hub")
    quiet_libraries(options)
    from bioreport.convert import convert as convert_weights

    written = convert_weights(
        options.kind, options.file, options.output, llm=options.llm, license=options.license
    )
    say(options, f"{written}: written")
    return 0


def doctor(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """What is installed, what is missing, and the command that adds it."""
    from bioreport.doctor import examine

    lines, complete = examine()
    print("\n".join(lines))
    return 0 if complete else 1
