"""What each command of the command line does."""

from bioreport.commands.data import corpus, encode, evaluate, simulate, tokenize
from bioreport.commands.generate import generate
from bioreport.commands.models import convert, doctor
from bioreport.commands.train import train

__all__ = [
    "convert",
    "corpus",
    "doctor",
    "encode",
    "evaluate",
    "generate",
    "simulate",
    "tokenize",
    "train",
]
