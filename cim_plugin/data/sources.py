"""Where data sets can be had: one table of mirrors, with licence, citation, size, checksums and traps.

What is known of each mirror comes from its pages and from public code that reads it, as of November 2026;
docs/data_sources.md says what nobody could verify without a network.
"""

from __future__ import annotations

from dataclasses import dataclass

from .pins import pinned

#: place -> (the client that downloads from it, the extra of cim_plugin that brings the client)
PLACES = {"hf": ("huggingface_hub", "data"), "url": ("pooch", "data"), "kaggle": ("kagglehub", "kaggle")}


@dataclass(frozen=True)
class File:
    """A file of a mirror."""

    name: str  #: path in the repository of the Hub, or address
    size: int | None = None  #: bytes; None: only the server knows
    sha256: str | None = None  #: None: the server's word is taken, where it gives one


@dataclass(frozen=True)
class Mirror:
    """One place that has a data set."""

    place: str  #: of `PLACES`; what --source takes
    repository: str  #: owner/name there, or the site
    revision: str  #: a commit, or what else does not change; "" where the place has none
    files: tuple[File, ...]  #: none: the whole repository
    layout: str  #: the function that turns the files into a release, of `layouts.LAYOUTS`
    size: int  #: bytes to download, as published, rounded where only rounded figures are
    licence: str
    redirects: tuple[str, ...] = ()  #: domains that may serve files without a checksum
    beware: str = ""


@dataclass(frozen=True)
class Entry:
    """A data set: who made it, and who has it."""

    name: str
    citation: str
    mirrors: tuple[Mirror, ...]  #: the first is used unless --source says another
    without: str = ""  #: why no mirror will do, and what a user can do

    def mirror(self, place: str | None) -> Mirror | None:
        """The mirror at a place, or the first one; None if there is none."""
        return next((mirror for mirror in self.mirrors if place in (None, mirror.place)), None)


def _pinned(repository: str) -> tuple[File, ...]:
    return tuple(File(name, size, sha256) for name, (size, sha256) in pinned(repository).items())


def _shards(counts: dict[str, int]) -> tuple[File, ...]:
    """Files of the folder ``data``, named as the Hub does."""
    return tuple(
        File(f"data/{split}-{number:05}-of-{count:05}.parquet")
        for split, count in counts.items()
        for number in range(count)
    )


_LILA = "https://storage.googleapis.com/public-datasets-lila/caltechcameratraps"
_STANFORD = "https://nlp.stanford.edu/data/dro/waterbird_complete95_forest2water2.tar.gz"

SOURCES = {
    entry.name: entry
    for entry in (
        Entry(
            "waterbirds",
            "Sagawa et al., ICLR 2020, arXiv:1911.08731; birds of CUB-200-2011, backgrounds of Places",
            (
                Mirror(
                    "hf",
                    "grodino/waterbirds",
                    "refs/convert/parquet",
                    _pinned("grodino/waterbirds"),
                    "waterbirds",
                    492_000_000,
                    "non-commercial research and education (wilds package); the mirror says MIT",
                    beware="the rows have no file names of the paper: where the mirror gives none they are named by "
                    "split and row",
                ),
                Mirror(
                    "url",
                    "nlp.stanford.edu",
                    "",
                    (File(_STANFORD),),
                    "waterbirds_archive",
                    500_000_000,
                    "non-commercial research and education (wilds package)",
                    beware="no checksum is published",
                ),
                Mirror(
                    "kaggle",
                    "bahardibaie/waterbird",
                    "",
                    (),
                    "waterbirds_archive",
                    500_000_000,
                    "not verified",
                    beware="its layout was not seen; it must hold the authors' metadata.csv",
                ),
            ),
        ),
        Entry(
            "celebA",
            "Liu et al., ICCV 2015, arXiv:1411.7766",
            (
                Mirror(
                    "hf",
                    "flwrlabs/celeba",
                    "2d738f56e0e7f925ea36ae7c808ea925264aacec",
                    _pinned("flwrlabs/celeba"),
                    "celebA",
                    11_734_694_689,
                    "CelebA's agreement: non-commercial research only",
                    beware="where the mirror gives no file names, images are numbered in its order",
                ),
                Mirror(
                    "kaggle",
                    "jessicali9530/celeba-dataset",
                    "",
                    (),
                    "celebA_tables",
                    1_450_000_000,
                    "CelebA's agreement: non-commercial research only",
                ),
            ),
        ),
        Entry(
            "camelyon17",
            "Bandi et al., IEEE TMI 2018; Koh et al., ICML 2021, arXiv:2012.07421",
            (
                Mirror(
                    "hf",
                    "wltjr1007/Camelyon17-WILDS",
                    "d784d5344ba6c967f83f9f3d9b2f1e2a4d6eb78f",
                    _shards({"train": 14, "validation": 3, "test": 4}),
                    "camelyon17",
                    10_700_000_000,
                    "CC0 (wilds package); the mirror says other",
                    beware="metadata.csv is rebuilt from the rows; jxie/camelyon17 has only images and labels",
                ),
            ),
        ),
        Entry(
            "PACS",
            "Li et al., ICCV 2017, arXiv:1710.03077",
            (
                Mirror(
                    "hf",
                    "flwrlabs/pacs",
                    "394113073258ead631f617d2e13bb377c0715c4b",
                    _pinned("flwrlabs/pacs"),
                    "environments",
                    191_395_900,
                    "unknown (so the mirror); research use",
                ),
            ),
        ),
        Entry(
            "OfficeHome",
            "Venkateswara et al., CVPR 2017, arXiv:1706.07522",
            (
                Mirror(
                    "hf",
                    "flwrlabs/office-home",
                    "d430d44779e929b335be368ab3456484e5de36bb",
                    _shards({"train": 3}),
                    "environments",
                    1_159_000_000,
                    "fair-use notice of the authors",
                ),
            ),
        ),
        Entry(
            "VLCS",
            "Fang et al., ICCV 2013",
            (
                Mirror(
                    "kaggle",
                    "iamjanvijay/vlcsdataset",
                    "",
                    (),
                    "vlcs",
                    3_700_000_000,
                    "not verified; research use",
                    beware="its layout was not seen; 'cim-plugin data vlcs --from' converts DomainBed's archive",
                ),
            ),
        ),
        Entry(
            "DomainNet",
            "Peng et al., ICCV 2019, arXiv:1812.01754",
            (
                Mirror(
                    "hf",
                    "wltjr1007/DomainNet",
                    "ee20570ae7a29c51571e55a9a17983f7625295d6",
                    _pinned("wltjr1007/DomainNet"),
                    "environments",
                    18_521_436_207,
                    "fair-use notice of the authors",
                    beware="586,575 images, as many as DomainBed has after it removed duplicates",
                ),
            ),
        ),
        Entry(
            "TerraIncognita",
            "Beery et al., ECCV 2018, arXiv:1807.04975",
            (
                Mirror(
                    "url",
                    "storage.googleapis.com (LILA)",
                    "",
                    (
                        File(f"{_LILA}/eccv_18_annotations.tar.gz", 2_997_071),
                        File(f"{_LILA}/eccv_18_all_images_sm.tar.gz", 6_492_615_601),
                    ),
                    "terra_incognita",
                    6_495_612_672,
                    "CDLA-Permissive-1.0",
                    beware="BGLab/TerraIncognita on the Hub is a data set of insects",
                ),
            ),
        ),
        Entry(
            "imagenet9",
            "Xiao et al., ICLR 2021, arXiv:2006.09994",
            (
                Mirror(
                    "url",
                    "github.com/MadryLab/backgrounds_challenge",
                    "release data",
                    (
                        File(
                            "https://github.com/MadryLab/backgrounds_challenge/releases/download/data/"
                            "backgrounds_challenge_data.tar.gz"
                        ),
                        File("https://www.dropbox.com/s/0vv2qsc4ywb4z5v/original.tar.gz?dl=1"),
                    ),
                    "imagenet9",
                    5_000_000_000,
                    "ImageNet's terms: non-commercial research",
                    redirects=("githubusercontent.com", "dropboxusercontent.com", "dropbox.com"),
                    beware="no checksum and no size is published; the training set lies on Dropbox",
                ),
            ),
        ),
        Entry(
            "fmow",
            "Christie et al., CVPR 2018; Koh et al., ICML 2021, arXiv:2012.07421",
            (),
            "the one mirror with WILDS' files, danielz01/fMoW on the Hub (config WILDS), is gated: ask for access on "
            "its page, log in with 'hf auth login', then 'hf download danielz01/fMoW --repo-type dataset', and lay its "
            "files out as fmow_v1.1; EVER-Z/fMoW_rgb and jbourcier/fmow-rgb-baseline are other data",
        ),
        Entry(
            "rxrx1",
            "Taylor et al., ICLR workshop 2019; Koh et al., ICML 2021, arXiv:2012.07421",
            (),
            "what its makers offer, rxrx1-images.zip and rxrx1-metadata.zip of 46 GB, has 6 channels of 512 pixels; "
            "WILDS' own version of 3 channels and 256 pixels, 7 GB, has no mirror: ask somebody who has rxrx1_v1.0 "
            "for a copy",
        ),
        Entry(
            "iwildcam",
            "Beery et al., arXiv:2004.10340; Koh et al., ICML 2021, arXiv:2012.07421",
            (),
            "no mirror is faithful: anngrosha/iWildCam2020 has images only (118 GB), djghosh/wds_wilds-iwildcam_test "
            "the test split only; ask somebody who has iwildcam_v2.0 for a copy",
        ),
    )
}


def listing() -> str:
    """The table for people, in Markdown: what 'cim-plugin data list' prints and docs/data_sources.md holds."""
    lines = [
        "| data set | source | where | size | licence | beware |",
        "|---|---|---|---|---|---|",
    ]
    for entry in SOURCES.values():
        for mirror in entry.mirrors:
            revision = f"@{mirror.revision[:8] if len(mirror.revision) == 40 else mirror.revision}"
            where = f"{mirror.repository}{revision if mirror.revision else ''}"
            cells = (entry.name, mirror.place, where, f"{mirror.size / 1e9:.1f} GB", mirror.licence, mirror.beware)
            lines.append("| " + " | ".join(cells) + " |")
    lines += [f"| {entry.name} | none | | | | {entry.without} |" for entry in SOURCES.values() if not entry.mirrors]
    lines += ["", "To cite: " + "; ".join(f"{entry.name}: {entry.citation}" for entry in SOURCES.values()) + "."]
    return "\n".join(lines) + "\n"
