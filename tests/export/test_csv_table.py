"""``detections.csv``: its columns and what stands in them."""

import csv
import io

from lens_d2.export import CsvTable


def test_csv_names_axes_and_conventions_in_its_header(report):
    rows = list(csv.DictReader(io.StringIO(CsvTable().render(report).decode())))
    assert list(rows[0]) == (
        ["detection", "finding", "score", "probability", "operating_point_fp_per_volume", "fpr_score"]
        + ["score_deeplesion", "score_luna"]
        + ["x1_pixel_edge", "y1_pixel_edge", "z1_first_slice"]
        + ["x2_pixel_edge", "y2_pixel_edge", "z2_last_slice"]
        + ["lps_x_min_mm", "lps_y_min_mm", "lps_z_min_mm", "lps_x_max_mm", "lps_y_max_mm", "lps_z_max_mm"]
        + ["diameter_x_mm", "diameter_y_mm", "diameter_z_mm", "key_slice", "num_slices", "slices"]
        + ["key_slice_instance_number", "key_slice_sop_instance_uid", "warnings"]
    )
    third = rows[2]
    voxels = [float(third[key]) for key in list(third)[8:14]]
    assert voxels == [5, 6, 2, 10, 10, 4]
    assert [float(third[f"diameter_{axis}_mm"]) for axis in "xyz"] == [7.5, 8, 9]
    assert (third["score"], third["score_luna"], third["fpr_score"]) == ("0.310000", "0.690000", "")
    assert (third["key_slice"], third["num_slices"], third["slices"]) == ("3", "3", "2 3 4")
