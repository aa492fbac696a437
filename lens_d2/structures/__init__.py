"""The forms in which data crosses from room to room: records, detections, boxes, geometry."""
