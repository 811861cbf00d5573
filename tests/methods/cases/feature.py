"""Cases of the losses in actors/losses/feature."""

from actors.losses import attention_transfer_loss, channel_wise_loss, hint_loss
from tests.methods.kit import GoldenRow, LossCase

FEATURES = ("student_features", "teacher_features")

CASES = (
    LossCase(
        loss=hint_loss,
        golden=(GoldenRow("fitnet (hint)", "no connector", "fs,ft"),),
        arguments=FEATURES,
        wrong_shapes={"teacher_features": (4, 6, 4, 4)},
        shape_error="teacher_features: expected shape (4, 3, 4, 4) as student_features, got (4, 6, 4, 4); "
        "fit the student's feature by a connector",
    ),
    LossCase(
        loss=attention_transfer_loss,
        golden=(GoldenRow("at", "p=2", "fs,ft"), GoldenRow("at", "p=2", "fs2,ft2")),
        arguments=FEATURES,
        wrong_shapes={"teacher_features": (4, 6, 2, 2)},
        shape_error="teacher_features: expected shape N, H and W of student_features (4, 3, 4, 4), "
        "got (4, 6, 2, 2); tap layers of one size, or resize one by a connector",
        other_phi={"exponent": 2.5},
    ),
    LossCase(
        loss=channel_wise_loss,
        golden=(
            GoldenRow("cwd", "T=4", "fs,ft"),
            GoldenRow("cwd", "T=1", "fs,ft", {"temperature": 1.0}),
        ),
        arguments=FEATURES,
        wrong_shapes={"teacher_features": (4, 6, 4, 4)},
        shape_error="teacher_features: expected shape (4, 3, 4, 4) as student_features, got (4, 6, 4, 4); "
        "fit the student's feature by a connector",
    ),
)
