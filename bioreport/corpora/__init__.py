"""Corpora as they lie on disk, to manifests: which recordings, whose, what their reports say, which split."""
