"""Cases of the losses in actors/losses/relation."""

from actors.losses import similarity_preserving_loss
from tests.methods.kit import GoldenRow, LossCase

FEATURES = ("student_features", "teacher_features")

CASES = (
    LossCase(
        loss=similarity_preserving_loss,
        golden=(GoldenRow("sp", "", "fs,ft"), GoldenRow("sp", "", "fs2,ft2")),
        arguments=FEATURES,
        wrong_shapes={"teacher_features": (3, 3, 4, 4)},
        shape_error="teacher_features: expected shape N of student_features (4, 3, 4, 4), "
        "got (3, 3, 4, 4); give both the same rows",
    ),
)
