"""Cases of the losses in actors/losses/response."""

from actors.losses import cross_entropy_loss, dist_loss, dkd_loss, generalized_jsd_loss, kd_loss
from tests.methods.kit import GoldenRow, LossCase

LOGITS = ("student_logits", "teacher_logits")
MAP_CLASSES = "teach the student the teacher's classes, or map the teacher's onto them"

CASES = (
    LossCase(
        loss=kd_loss,
        golden=(
            GoldenRow("kd", "T=4", "s,t", {"temperature": 4.0}),
            GoldenRow("kd", "T=1", "s,t", {"temperature": 1.0}),
            GoldenRow("logit standardisation + kd", "T=2", "s,t", {"temperature": 2.0, "standardize": True}),
        ),
        arguments=LOGITS,
        wrong_shapes={"teacher_logits": (4, 5)},
        shape_error=f"teacher_logits: expected shape (4, 6) as student_logits, got (4, 5); {MAP_CLASSES}",
    ),
    LossCase(
        loss=dkd_loss,
        golden=(
            GoldenRow("dkd", "alpha=1 beta=8 T=4", "s,t,y"),
            GoldenRow("dkd: target-class part", "T=4", "s,t,y", {"beta": 0.0}),
            GoldenRow("dkd: non-target-class part", "T=4", "s,t,y", {"alpha": 0.0, "beta": 1.0}),
        ),
        arguments=(*LOGITS, "labels"),
        wrong_shapes={"labels": (4, 6)},
        shape_error="labels: expected shape (4,) for student_logits (4, 6), got (4, 6); give one class number per row",
    ),
    LossCase(
        loss=dist_loss,
        golden=(
            GoldenRow("dist", "beta=1 gamma=1 tau=1", "s,t"),
            GoldenRow("dist", "beta=1 gamma=1 tau=4", "s,t", {"temperature": 4.0}),
            GoldenRow("dist: inter-class only", "tau=1", "s,t", {"gamma": 0.0}),
            GoldenRow("dist: intra-class only", "tau=1", "s,t", {"beta": 0.0}),
        ),
        arguments=LOGITS,
        wrong_shapes={"teacher_logits": (3, 6)},
        shape_error=f"teacher_logits: expected shape (4, 6) as student_logits, got (3, 6); {MAP_CLASSES}",
        zero_tolerance=1e-5,
        steep_at=("zero student",),
    ),
    LossCase(
        loss=generalized_jsd_loss,
        golden=(
            GoldenRow("gkd (generalised JSD)", "beta=0.5 T=1", "s,t"),
            GoldenRow("gkd (generalised JSD)", "beta=0.1 T=1", "s,t", {"beta": 0.1}),
            GoldenRow("gkd (reverse KL)", "beta=1 T=1", "s,t", {"beta": 1.0}),
            GoldenRow("kd", "T=1", "s,t", {"beta": 0.0}),
        ),
        arguments=LOGITS,
        wrong_shapes={"teacher_logits": (4, 5)},
        shape_error=f"teacher_logits: expected shape (4, 6) as student_logits, got (4, 5); {MAP_CLASSES}",
    ),
    LossCase(
        loss=cross_entropy_loss,
        golden=(GoldenRow("cross entropy", "", "s,y"),),
        arguments=("student_logits", "labels"),
        wrong_shapes={"labels": (3,)},
        shape_error="labels: expected shape (4,) for student_logits (4, 6), got (3,); give one class number per row",
    ),
)
