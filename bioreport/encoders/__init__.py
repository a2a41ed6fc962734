"""Frozen signal encoders, one file a published architecture."""
