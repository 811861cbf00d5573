"""What a loss says of itself, and what the losses may import."""

import ast
import sys
from pathlib import Path

import pytest

import actors.losses
from actors.losses import LossMetadata, distils, metadata_of

FOLDER = Path(actors.losses.__file__).parent


def plain(student_features, teacher_features):
    return student_features - teacher_features


def test_the_decorator_changes_nothing_else():
    before = dict(vars(plain))
    decorated = distils(paper="A, 2020, arXiv 2001.00001", kind="feature", needs=("ids",), aligns="space")(plain)
    assert decorated is plain and plain(3, 1) == 2
    expected = LossMetadata("A, 2020, arXiv 2001.00001", "feature", ("ids",), "space")
    assert metadata_of(plain) == expected
    assert set(vars(plain)) - set(before) == {"distillation"}


def test_a_loss_without_the_decorator_has_no_metadata():
    assert metadata_of(len) is None
    assert metadata_of(actors.losses.cross_entropy_loss) is None


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"kind": "respnse"}, "kind: expected one of response, feature, relation, got 'respnse'"),
        ({"kind": "feature", "aligns": "H"}, "aligns: expected one of all, space, channels, nothing, got 'H'"),
        (
            {"kind": "feature", "phi": len},
            "phi, closing: expected both or neither; closing takes phi's results",
        ),
        ({"kind": "feature", "needs": "ids"}, "needs: expected a tuple of names, got the text 'ids'"),
    ],
)
def test_a_misspelt_field_is_refused(fields, text):
    with pytest.raises(ValueError) as error:
        distils(paper="A, 2020, arXiv 2001.00001", **fields)
    assert str(error.value) == text


def test_a_phi_that_no_teacher_could_import_is_refused():
    with pytest.raises(
        ValueError, match=r"^phi: expected a function that a teacher can import, got <function .*lambda"
    ):
        distils(paper="A, 2020", kind="feature", phi=lambda features: features, closing=plain)


def test_a_phi_with_an_argument_that_the_loss_lacks_is_refused():
    attach = distils(
        paper="A, 2020", kind="feature", phi=actors.losses.feature.attention_transfer.attention_map, closing=plain
    )
    with pytest.raises(ValueError, match=r"^phi: it takes 'exponent', which plain.. lacks; give the loss that too"):
        attach(plain)


def test_every_exported_name_resolves():
    assert all(hasattr(actors.losses, name) for name in actors.losses.__all__)


def imported(source):
    """The modules that a file imports, wherever in it the import stands."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "actors.losses" if node.level else node.module


def is_allowed(module):
    top = module.split(".")[0]
    own = module == "actors.losses" or module.startswith("actors.losses.")
    return own or top == "torch" or top in sys.stdlib_module_names


def test_losses_import_torch_and_the_standard_library_alone():
    files = sorted(FOLDER.rglob("*.py"))
    assert len(files) > 10
    found = {f"{f.relative_to(FOLDER)}: {m}" for f in files for m in imported(f.read_text()) if not is_allowed(m)}
    assert not found


def test_the_import_test_can_fail():
    source = "import torch\ndef f():\n    import numpy.linalg\n    from actors.specs import LossSpec\n"
    assert [m for m in imported(source) if not is_allowed(m)] == ["numpy.linalg", "actors.specs"]
