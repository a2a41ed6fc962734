"""MEIT: a language model that reads an ECG among its keys and values and writes its report.

Wan et al., *MEIT: Multimodal Electrocardiogram Instruction Tuning on Large Language Models for Report
Generation*, Findings of ACL 2025 (arXiv 2403.04945). An encoder makes one embedding of a record (or several),
`bioreport.fusion_cache` puts it into every attention layer, and both the encoder and LoRA on the language
model learn from pairs of records and reports.

Its records are 12 leads at 500 Hz, 10 s, each scaled to [0, 1] over all its leads.

>>> from bioreport.meit import train_meit, write_reports
>>> train_meit("ecg/manifest.jsonl", llm="meta-llama/Llama-3.2-1B", out="my-meit")      # doctest: +SKIP
>>> write_reports("my-meit", ["record.hea"])                                            # doctest: +SKIP
"""

from bioreport.lora import LORA_ALPHA, LORA_DROPOUT, LORA_RANK, LORA_TARGETS
from bioreport.meit.files import FORMAT, VERSION, is_meit, load_meit, new_meit, save_meit
from bioreport.meit.model import Meit, MeitInputs, meit_loss
from bioreport.meit.records import EcgRecord, read_record
from bioreport.meit.text import ASSISTANT, PROMPTS, TEMPLATES, USER, ReportText
from bioreport.meit.train import train_meit
from bioreport.meit.writing import write_reports
from bioreport.training import Result

__all__ = [
    "ASSISTANT",
    "FORMAT",
    "LORA_ALPHA",
    "LORA_DROPOUT",
    "LORA_RANK",
    "LORA_TARGETS",
    "PROMPTS",
    "TEMPLATES",
    "USER",
    "VERSION",
    "EcgRecord",
    "Meit",
    "MeitInputs",
    "ReportText",
    "Result",
    "is_meit",
    "load_meit",
    "meit_loss",
    "new_meit",
    "read_record",
    "save_meit",
    "train_meit",
    "write_reports",
]
