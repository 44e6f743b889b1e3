"""Camera or video -> class and heatmap of each frame, on the screen or in a video file.

python camera_loop.py cars.onnx 0                      # the first camera, in a window; Esc ends
python camera_loop.py cars.onnx street.mp4 heat.mp4    # a video, to a video
"""

import sys

import cv2

from edgex.runtime import Session


def main(model: str, source: str, out: str | None = None) -> None:
    """Runs the loop until the source ends."""
    session = Session(model)
    capture = cv2.VideoCapture(int(source) if source.isdigit() else source)
    if not capture.isOpened():
        sys.exit(f"cannot open {source}")
    writer = None
    while True:
        ok, frame = capture.read()  # HWC uint8, BGR
        if not ok:
            break
        result = session(frame, color="bgr")
        shown = result.overlay(frame)
        caption = f"{result.label} {result.score:.0%}"
        cv2.putText(shown, caption, (8, 24), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255, 255, 255), 2)
        if out is None:
            cv2.imshow("edgex", shown)
            if cv2.waitKey(1) == 27:
                break
            continue
        if writer is None:
            size = (frame.shape[1], frame.shape[0])
            writer = cv2.VideoWriter(out, cv2.VideoWriter.fourcc(*"mp4v"), capture.get(cv2.CAP_PROP_FPS) or 25, size)
        writer.write(shown)
        print(caption)
    capture.release()
    if writer is not None:
        writer.release()


if __name__ == "__main__":
    main(*sys.argv[1:])
