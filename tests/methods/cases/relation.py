"""Cases of the losses in actors/losses/relation."""

from actors.losses import pkt_loss, rkd_angle_loss, rkd_distance_loss, similarity_preserving_loss
from tests.methods.kit import GoldenRow, LossCase

FEATURES = ("student_features", "teacher_features")
EMBEDDINGS_OF_THREE = {
    "wrong_shapes": {"teacher_features": (3, 5)},
    "shape_error": "teacher_features: expected shape N of student_features (4, 5), got (3, 5); give both the same rows",
}

CASES = (
    LossCase(
        loss=similarity_preserving_loss,
        golden=(GoldenRow("sp", "", "fs,ft"), GoldenRow("sp", "", "fs2,ft2")),
        arguments=FEATURES,
        wrong_shapes={"teacher_features": (3, 3, 4, 4)},
        shape_error="teacher_features: expected shape N of student_features (4, 3, 4, 4), "
        "got (3, 3, 4, 4); give both the same rows",
    ),
    LossCase(
        loss=rkd_distance_loss,
        golden=(GoldenRow("rkd: distance", "weight 1", "es,et"),),
        arguments=FEATURES,
        **EMBEDDINGS_OF_THREE,
    ),
    LossCase(
        loss=rkd_angle_loss,
        golden=(GoldenRow("rkd: angle", "weight 1", "es,et"),),
        arguments=FEATURES,
        **EMBEDDINGS_OF_THREE,
    ),
    LossCase(
        loss=pkt_loss,
        golden=(GoldenRow("pkt", "eps=1e-7", "es,et"),),
        arguments=FEATURES,
        **EMBEDDINGS_OF_THREE,
        zero_tolerance=1e-7,
    ),
)
