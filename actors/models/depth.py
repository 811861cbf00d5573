"""What the families that scale by depth have in common."""


def require_depth(depth: int) -> None:
    if depth < 1:
        raise ValueError(f"depth: expected at least 1, got {depth}; lower width to make the model smaller still")
