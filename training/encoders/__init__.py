"""Encoders: the default one built from its published weights, others exported, and which of them a run uses."""

from training.encoders.chosen import chosen_encoder, encoder_for, put_in_place
from training.encoders.default import DEFAULT_ENCODER, build_default_encoder

__all__ = ["DEFAULT_ENCODER", "build_default_encoder", "chosen_encoder", "encoder_for", "put_in_place"]
