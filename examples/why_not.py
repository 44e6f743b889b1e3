"""Why A and not B? The evidence for A less the evidence for B, patch by patch.

python why_not.py imagenet-1k.onnx dog.jpg "Malinois" why_not.png

Both heatmaps add up to their class's logit, so their difference adds up to the difference of the two logits. Yellow to
red speaks for the predicted class, blue for the other one.
"""

import copy
import sys

from PIL import Image

from edgex.runtime import Session


def main(model: str, picture: str, other: str, out: str) -> None:
    """Prints what decides between the two classes and draws it."""
    session = Session(model)
    predicted, alternative = session(picture, explain=[None, other])
    margin = predicted.logits[predicted.index] - predicted.logits[alternative.explained_index]
    contrast = copy.copy(predicted)
    contrast.heatmap = predicted.heatmap - alternative.heatmap
    base = predicted.base - alternative.base
    print(f"{predicted.label} is ahead of {alternative.explained} by {margin:.2f} logits:")
    print(f"  {contrast.heatmap.clip(min=0).sum():+.2f} from patches for {predicted.label}")
    print(f"  {contrast.heatmap.clip(max=0).sum():+.2f} from patches for {alternative.explained}")
    print(f"  {base:+.2f} without any patch")
    Image.fromarray(contrast.overlay(picture, colormap="signed")).save(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
