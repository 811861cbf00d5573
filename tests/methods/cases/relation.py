"""Cases of the losses in actors/losses/relation."""

from actors.losses import fsp_loss, pkt_loss, rkd_angle_loss, rkd_distance_loss, similarity_preserving_loss
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
    LossCase(
        loss=fsp_loss,
        golden=(GoldenRow("fsp", "fs->fs2", "fs,fs2,ft,ft2", {"pooling": "mean"}),),
        arguments=("student_early", "student_late", "teacher_early", "teacher_late"),
        wrong_shapes={"teacher_late": (4, 5, 2, 2)},
        shape_error="teacher_late: expected shape N and C of student_late (4, 6, 2, 2), got (4, 5, 2, 2); "
        "tap layers of as many channels, or fit one by a connector",
        other_phi={"pooling": "max"},
        steep_at=("huge", "huge and opposed", "huge student", "huge teacher"),
    ),
)
