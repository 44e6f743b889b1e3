"""A folder of pictures -> one CSV row each: class, probability, and the box around the strongest evidence.

python folder_to_csv.py cars.onnx pictures results.csv
"""

import csv
import sys
from pathlib import Path

from edgex.runtime import ImageError, Result, Session
from edgex.runtime.picture_files import list_pictures

BATCH = 8


def main(model: str, folder: str, out: str) -> None:
    """Writes the table; a picture that cannot be read is named on standard error and left out."""
    session = Session(model)
    paths = list_pictures(folder)
    with Path(out).open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["picture", "label", "score", "left", "top", "right", "bottom"])
        for start in range(0, len(paths), BATCH):
            for path, result in run(session, paths[start : start + BATCH]):
                boxes = result.boxes()
                box = [boxes[0].left, boxes[0].top, boxes[0].right, boxes[0].bottom] if boxes else [""] * 4
                table.writerow([path.relative_to(folder), result.label, f"{result.score:.4f}", *box])


def run(session: Session, paths: list[Path]) -> list[tuple[Path, Result]]:
    """A batch at once; picture by picture where one of them is broken."""
    try:
        return list(zip(paths, session(paths), strict=True))
    except ImageError as error:
        if len(paths) > 1:
            return [found for path in paths for found in run(session, [path])]
        print(error, file=sys.stderr)
        return []


if __name__ == "__main__":
    main(*sys.argv[1:])
