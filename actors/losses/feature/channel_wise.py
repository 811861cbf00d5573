"""Channel-wise distillation: where each channel of the teacher is active."""

from torch import Tensor

from actors.losses.metadata import distils
from actors.losses.probabilities import kl_divergence, log_probabilities
from actors.losses.reduction import Reduction, reduce
from actors.losses.shapes import require_same_shape, require_same_space


@distils(paper="Shu et al., 2020, arXiv 2011.13256", kind="feature")
def channel_wise_loss(
    student_features: Tensor,
    teacher_features: Tensor,
    *,
    temperature: float = 4.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Each channel as a distribution over the places (Shu et al., 2020, arXiv 2011.13256).

    T^2 * mean_c KL(p_t || p_s), summed over H * W, then averaged over the batch, with p = softmax(f_c / T)
    over the H * W places of channel c. A published weight assumes T^2 and the division by C and by N. A map of
    logits per pixel is a feature here, its classes the channels.

    student_features, teacher_features: (N, C, H, W), of one shape. Returns a scalar, or (N,) with
    `reduction="none"`.
    Raises ValueError where the shapes differ, the temperature is not above 0, or the reduction is unknown.
    """
    require_same_space(student_features=student_features, teacher_features=teacher_features)
    require_same_shape(
        "fit the student's feature by a connector",
        student_features=student_features,
        teacher_features=teacher_features,
    )
    student = log_probabilities(student_features.flatten(start_dim=2), temperature)
    teacher = log_probabilities(teacher_features.flatten(start_dim=2), temperature)
    return reduce(temperature**2 * kl_divergence(student, teacher).mean(dim=1), reduction)
