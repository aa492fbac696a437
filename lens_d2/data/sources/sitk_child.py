"""A process that reads one file by SimpleITK, so that a crash of native code ends nothing else.

    python sitk_child.py PATH [--header]

It writes a line of JSON (format, size, spacing, direction, origin, components, dtype) to standard output and,
without ``--header``, the voxels behind it; on an error, a line to standard error, and exits with status 3. It
imports SimpleITK and NumPy only, as the package takes seconds to import.
"""

import json
import os
import sys

import SimpleITK as sitk

FAILED = 3


def main(path: str, header_only: bool) -> None:
    """Write the header of a file and, unless ``header_only``, its voxels to standard output."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what native code prints must not mix with the voxels
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    reader = sitk.ImageFileReader()
    reader.SetFileName(path)
    reader.ReadImageInformation()
    components, dimensions = reader.GetNumberOfComponents(), reader.GetDimension()
    header = {
        "format": sitk.ImageFileReader.GetImageIOFromFileName(path).removesuffix("ImageIO"),
        "size": reader.GetSize(),
        "spacing": reader.GetSpacing(),
        "direction": reader.GetDirection(),
        "origin": reader.GetOrigin(),
        "components": components,
    }
    array = None
    if not header_only and (components, dimensions) == (1, 3):
        array = sitk.GetArrayViewFromImage(image := reader.Execute())
        header |= {"dtype": array.dtype.str, "size": image.GetSize()}
    out.write(json.dumps(header).encode() + b"\n")
    for picture in () if array is None else array:
        out.write(picture.tobytes())
    out.flush()


if __name__ == "__main__":
    try:
        main(sys.argv[1], "--header" in sys.argv[2:])
    except RuntimeError as error:
        print(str(error).strip(), file=sys.stderr)
        sys.exit(FAILED)
