"""Flags of import that a layout has no use for are refused by name, never passed over."""

from segline.importing.formats import LayoutError, Wishes


def refuse(wishes: Wishes, what: str, *honoured: str) -> None:
    """Raise LayoutError for a wish that `what` cannot grant; `labels` and `names` are left to the layout."""
    for field in ("ignore", "threshold", "colours"):
        value = getattr(wishes, field)
        if field not in honoured and value not in (None, {}):
            raise LayoutError(f"--{field}: {what} have no mask values that it could mean; leave it out")
    if wishes.crowd and "crowd" not in honoured:
        raise LayoutError(f"--crowd: {what} know no crowds, COCO does; leave it out")
    if wishes.skip_shapes and "skip_shapes" not in honoured:
        raise LayoutError(f"--skip-shapes: {what} are no shapes of LabelMe; leave it out")
    if wishes.missing_as_background and "missing_as_background" not in honoured:
        raise LayoutError(f"--missing-as-background: {what} say which images are labelled; leave it out")
