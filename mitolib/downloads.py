"""Public files that the book can use and does not hold: where each lies, what it must be, whose it is.

A file is looked for in the folder that the environment variable MITOLIB_MIRROR names, then in `data/cache/public`,
then at its address. `local` never asks the network, so that a notebook runs the same without one; `fetch` does, when
a reader says so: `python -m mitolib fetch` lists the files, `python -m mitolib fetch NAME` brings one. What is found is
checked against its digest; another file of the same name is an error, never a reason to look further.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pooch

from mitolib.settings import DATA, mirrored

CACHE = DATA / "cache" / "public"
TIMEOUT_S = 20  # per connection; a machine without the network must not hang


class RegistryError(OSError):
    """A public file that cannot be had or is another one; the message says what to do."""


@dataclass(frozen=True)
class PublicFile:
    """What is known about a file before it is here."""

    file_name: str  # in mirror and cache
    address: str
    known_hash: str | None  # "algorithm:digest", or the digest's beginning; None where no publisher states one
    megabytes: float | None
    licence: str
    citation: str


_GITHUB = "https://raw.githubusercontent.com"
_KERAS = "https://storage.googleapis.com/tensorflow/keras-applications"
_TEST_DATA = "https://github.com/BodenmillerGroup/TestData"
_TEST_DATA_CITATION = "Bodenmiller group, University of Zurich, TestData, 210308_ImcTestData"

FILES = {
    "NCL-SM": PublicFile(
        "NCL-SM.zip",
        "https://doi.org/10.25405/data.ncl.24125391",
        None,
        None,
        "see its page",
        "Khan et al. 2023, NCL-SM: a fully annotated dataset of images from human skeletal muscle biopsies, "
        "arXiv:2311.15113",
    ),
    "P03 mask": PublicFile(
        "P03_instance_mask.tiff",
        f"{_GITHUB}/CnrLwlss/singlefibre_Atif/372e82b231944b9d7ca134be3b1f0d5284b370a0/P03_instance_mask.tiff",
        "sha256:20c200a9233e407b01ab9b84d65018ccf2699d4e3ca54709a7a623e23449010a",
        0.9,
        "MIT",
        "github.com/CnrLwlss/singlefibre_Atif: hand-drawn fibres of one section",
    ),
    "COX4 picture": PublicFile(
        "mitocyto_COX4.png",
        f"{_GITHUB}/CnrLwlss/mitocyto/494e347ca0fd77af4404cb6359a5da469bc2ba85/images/channel.png",
        "sha256:9668d18707f87a55e69b44df06491ae29608b6dbf11ff79d6fc819c1bd95f8aa",
        3.9,
        "GPL-3.0",
        "github.com/CnrLwlss/mitocyto: one section in COX4, 8-bit pseudo-image",
    ),
    "Childs table": PublicFile(
        "data_prepped_manualClassif.txt",
        f"{_GITHUB}/jordanbchilds/oxphosDeficientClassification/1a2d13ea73a2adac8eabd19bf0e2cc4992feae99/Data/"
        "data_prepped_manualClassif.txt",
        None,
        None,
        "MIT",
        "Childs et al. 2025, doi:10.1371/journal.pcbi.1012770: single fibres with the labels of three experts",
    ),
    "Hyperion .mcd": PublicFile(
        "mockData1.mcd",
        _TEST_DATA,
        "sha256:559d70b91bb5b89e29b2f1d58be7708c081075d05e2169ea4126939d6c1efb71",
        0.4,
        "CC BY 4.0",
        _TEST_DATA_CITATION,
    ),
    "Hyperion .txt": PublicFile(
        "mockData1_ROI_001_1.txt",
        _TEST_DATA,
        "sha256:9e431a5e203fa8039e2b1a0ca79ed36796eede12bfa808ef9a74cddd768b80d5",
        0.2,
        "CC BY 4.0",
        _TEST_DATA_CITATION,
    ),
    "Hyperion OME-TIFF": PublicFile(
        "mockData1_s0_a1_ac.ome.tiff",
        _TEST_DATA,
        "sha256:259ab45fc7ec89d7a1e2759f9968361dda655e1f980ed9045a287caec7a61a11",
        0.1,
        "CC BY 4.0",
        _TEST_DATA_CITATION,
    ),
    "VGG16": PublicFile(
        "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
        f"{_KERAS}/vgg16/vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "md5:6d6bbae143d832006294945121d1f1fc",
        58.9,
        "CC BY 4.0, Visual Geometry Group, Oxford",
        "Simonyan and Zisserman 2014, arXiv:1409.1556",
    ),
    "ResNet50": PublicFile(
        "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
        f"{_KERAS}/resnet/resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "md5:4d473c1dd8becc155b73f8504c6f6626",
        94.8,
        "MIT, Kaiming He",
        "He et al. 2016, doi:10.1109/CVPR.2016.90",
    ),
    "ResNet18": PublicFile(
        "resnet18-f37072fd.pth",
        "https://download.pytorch.org/models/resnet18-f37072fd.pth",
        "sha256:f37072fd",  # all that torchvision states, in the file's name
        46.8,
        "BSD-3-Clause, torchvision contributors",
        "He et al. 2016, doi:10.1109/CVPR.2016.90",
    ),
}


def local(name: str) -> Path | None:
    """Where the file lies on this machine, mirror first, or None. RegistryError if it is another file."""
    file = FILES[name]
    kept = CACHE / file.file_name
    path = mirrored(file.file_name) or (kept if kept.exists() else None)
    if path is None or file.known_hash is None:
        return path
    algorithm, wanted = file.known_hash.split(":")
    if not (found := pooch.file_hash(path, algorithm)).startswith(wanted):
        raise RegistryError(
            f"{path}: {algorithm} {found}, wanted {wanted} of {name}. Delete it, or take it again from {file.address}."
        )
    return path


def fetch(name: str) -> Path:
    """The file, from this machine or from its address, where it is then kept in `data/cache/public`.

    Raises RegistryError for a name that is not known, without the network, for a page instead of a file, and for
    a file whose digest nobody states: such a one is a reader's to download and to judge.
    """
    if name not in FILES:
        raise RegistryError(f"{name}: no public file of that name; known are {', '.join(FILES)}.")
    if path := local(name):
        return path
    file = FILES[name]
    by_hand = f"Download it by hand and put it, as {file.file_name}, into the folder that MITOLIB_MIRROR names."
    if file.known_hash is None or Path(file.address).suffix == "":
        raise RegistryError(f"{name}: is brought from {file.address} by hand only. {by_hand}")
    pooch.get_logger().setLevel("WARNING")  # it announces every attempt, the vain ones too
    try:
        return Path(
            pooch.retrieve(
                file.address,
                known_hash=file.known_hash,
                fname=file.file_name,
                path=CACHE,
                downloader=pooch.HTTPDownloader(timeout=TIMEOUT_S),
            )
        )
    except ValueError as error:  # pooch's word for another digest
        raise RegistryError(f"{file.address}: holds another file than {name}, {file.known_hash}. {by_hand}") from error
    except OSError as error:  # requests' errors are OSErrors: no network, refused, timed out
        raise RegistryError(f"{file.address}: out of reach ({type(error).__name__}). {by_hand}") from error
