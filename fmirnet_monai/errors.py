"""What a user is told of an error: one line that says what it is about and what to do."""

from __future__ import annotations

import errno
import os
import re
import shutil

PROGRAM, PACKAGE = "fmirnet", "fmirnet_monai"
FAILED, INTERRUPTED, TERMINATED = 2, 130, 143  # exit codes
STOPPED = "interrupted; nothing is half-written, what was done before is kept: start the command again."
EXTRAS = {  # of setup.cfg, by the modules that they bring
    **{"ants": "ants", "picsl_greedy": "greedy", "convexAdam": "convexadam"},
    **{"onnx": "onnx", "onnxscript": "onnx", "onnxruntime": "onnx", "highdicom": "dicom"},
    **dict.fromkeys(("dask", "distributed"), "cluster"),
    **{"av": "video", "tensorboard": "train", "tensorboardX": "train", "jsonschema": "zoo"},
}
DISTRIBUTIONS = {"PIL": "pillow", "ignite": "pytorch-ignite"}  # where the module has another name
REMEDIES = {
    errno.ENOENT: "check the path",
    errno.EACCES: "check its rights",
    errno.EPERM: "check its rights",
    **dict.fromkeys((errno.ENOSPC, errno.EFBIG, errno.EDQUOT), "check the space and rights of the output's folder"),
}


def one_line(text: object, longest: int = 900) -> str:
    """A text as a line that a terminal shows as it is: what files hold and messages quote may be anything."""
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(str(text).split()))
    return line if len(line) <= longest else f"{line[: longest - 200]} … {line[-190:]}"


def explain(error: BaseException) -> str:
    """One line on an error that the user can mend, empty for one of this package's own."""
    if isinstance(error, ImportError):
        return _explain_absence(error)
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _lacks_memory(error)):
        said = " ".join(str(error).split()).rstrip(".")
        return f"memory is short{f' ({said[:150]})' if said else ''}; give smaller images or close other programs."
    if isinstance(error, RuntimeError) and lacks_space(error):
        return "a file can't be written; check the rights and space of the output's folder and of that of TMPDIR."
    if isinstance(error, shutil.Error):  # of a folder that is copied: a line for each file
        _, target, said = error.args[0][0]
        said = re.sub(r"\[Errno \d+\] |: '.*", "", said)
        return f"{target}: can't be written ({said}); check the folder's rights and space."
    if isinstance(error, OSError) and error.errno is not None and error.strerror:
        remedy = REMEDIES.get(error.errno, "check the path, its rights and its disk")
        place = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        return f"{place}{error.strerror.lower()}; {remedy}."
    return one_line(error) if isinstance(error, ValueError | OSError) else ""


def _explain_absence(error: ImportError) -> str:
    """Which package is absent, and how to get it."""
    module = (error.name or "").split(".")[0]
    said = " ".join(str(error).split()).rstrip(".")
    if module == PACKAGE:
        return ""
    if not module or "pip install" in said:
        return f"{said}."
    package = DISTRIBUTIONS.get(module, module)
    wanted = f"{PACKAGE}[{EXTRAS[module]}]" if module in EXTRAS else package
    missing = "is not installed" if isinstance(error, ModuleNotFoundError) else f"can't be loaded ({said[:200]})"
    return f"{package} {missing}; get it by: pip install '{wanted}'."


def lacks_space(error: RuntimeError) -> bool:
    """Whether it is torch's way to say that a disk is full."""
    return "PytorchStreamWriter failed" in str(error) or "inline_container" in str(error)


def _lacks_memory(error: RuntimeError) -> bool:
    """Whether it is torch's way to say that memory is short, of the computer or of the GPU."""
    return type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)
