"""Losses as pure functions, a small file per method, found as `actors.losses:<name>`; imports torch alone."""

from actors.losses.feature.attention_transfer import attention_transfer_loss
from actors.losses.feature.channel_wise import channel_wise_loss
from actors.losses.feature.hint import hint_loss
from actors.losses.metadata import LossMetadata, distils, metadata_of
from actors.losses.relation.fsp import fsp_loss
from actors.losses.relation.pkt import pkt_loss
from actors.losses.relation.rkd import rkd_angle_loss, rkd_distance_loss
from actors.losses.relation.similarity_preserving import similarity_preserving_loss
from actors.losses.response.cross_entropy import cross_entropy_loss
from actors.losses.response.dist import dist_loss
from actors.losses.response.dkd import dkd_loss
from actors.losses.response.generalized_jsd import generalized_jsd_loss
from actors.losses.response.kd import kd_loss

__all__ = [
    "LossMetadata",
    "attention_transfer_loss",
    "channel_wise_loss",
    "cross_entropy_loss",
    "dist_loss",
    "distils",
    "dkd_loss",
    "fsp_loss",
    "generalized_jsd_loss",
    "hint_loss",
    "kd_loss",
    "metadata_of",
    "pkt_loss",
    "rkd_angle_loss",
    "rkd_distance_loss",
    "similarity_preserving_loss",
]
