"""Pictures of CT slices with boxes: for pages (planes, pictures) and as sheets (samples, detections, figures)."""
