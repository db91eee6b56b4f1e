"""Where the files of each benchmark come from: what `clcr fetch` downloads, and what a person must get by hand.

Lists are pinned to a commit and a sha256; they are fetched from their owners, never kept in this project. A file whose
owner publishes no checksum says so: its sha256 is told after the download, and nothing can be compared. No torch.
"""

from __future__ import annotations

from dataclasses import dataclass

_RAW = "https://raw.githubusercontent.com"
_OGM_GE = f"{_RAW}/GeWu-Lab/OGM-GE_CVPR2022/343dc1d95c9bda88f105c0da8d24f185e0e98b54/data"
_CREMA_D = f"{_RAW}/CheyneyComputerScience/CREMA-D/1658cd342dff90010aa843eaeebd53610a08b1dc"
_PMR = f"{_RAW}/fanyunfeng-bit/Modal-Imbalance-PMR/3615e48983555089b0e693380087617c3797a641/data/AVE"
_AVE = f"{_RAW}/YapengTian/AVE-ECCV18/93f843fed72fb17394df76330df958b0c2dbde76/data"
_UCF101 = f"{_RAW}/harvitronix/five-video-classification-methods/6c610cd179c6f44ddbd53fb5ac16f6fd71c58ab0/data"
_SDK = f"{_RAW}/CMU-MultiComp-Lab/CMU-MultimodalSDK/4f2eadcd7e7b9e20e83b868cdad385b41830285c"
_FOLDS = f"{_SDK}/mmsdk/mmdatasdk/dataset/standard_datasets"
_CSD = "http://immortal.multicomp.cs.cmu.edu"

_MIT = "MIT"
_ODBL = "Open Database License 1.0"
_CMU = "terms of CMU MultiComp; the videos belong to their owners"


@dataclass(frozen=True)
class File:
    """A file to download. path: where it goes below the folder. sha256 and size (bytes): "" and 0 where nobody states
    them. large: fetched only when asked for."""

    path: str
    url: str
    licence: str
    sha256: str = ""
    size: int = 0
    large: bool = False


@dataclass(frozen=True)
class ByHand:
    """What needs a form, a login, git-lfs or YouTube. layout: the folder as it must look; pattern and count: how to see
    how much of it is there. archive: what the owner's archive is called; it is unpacked where it lies in the folder."""

    what: str
    url: str
    licence: str
    terms: str
    steps: tuple[str, ...]
    layout: tuple[str, ...]
    pattern: str
    count: int
    archive: str = ""


@dataclass(frozen=True)
class Sources:
    """The sources of one benchmark."""

    files: tuple[File, ...] = ()
    by_hand: tuple[ByHand, ...] = ()


_CREMA_D_MEDIA = ByHand(
    what="7,442 clips: AudioWAV (wav) and VideoFlash (flv)",
    url="https://github.com/CheyneyComputerScience/CREMA-D",
    licence=_ODBL,
    terms="The owners ask users of the repository to fill in the form that its README links.",
    steps=(
        "install git-lfs (https://git-lfs.github.com) and run `git lfs install`",
        "GIT_LFS_SKIP_SMUDGE=1 git clone https://github.com/CheyneyComputerScience/CREMA-D DIR/CREMA-D",
        "cd DIR/CREMA-D && git checkout 1658cd342dff90010aa843eaeebd53610a08b1dc",
        "git lfs pull --include 'AudioWAV/*,VideoFlash/*' (the whole repository would be 7.6 GB)",
        "a wav of about 130 bytes is a git-lfs pointer, not sound: pull again",
    ),
    layout=("DIR/CREMA-D/AudioWAV/1001_DFA_ANG_XX.wav", "DIR/CREMA-D/VideoFlash/1001_DFA_ANG_XX.flv (or .mp4)"),
    pattern="**/AudioWAV/*.wav",
    count=7442,
)
_KINETICS_MEDIA = ByHand(
    what="the clips of Kinetics-400's training set that the two lists name",
    url="https://github.com/cvdfoundation/kinetics-dataset",
    licence="annotations CC BY 4.0; the videos belong to their owners",
    terms="Clips vanish from YouTube; protocol `available` takes what is there, protocol `paper` needs all 17,396.",
    steps=(
        "follow the README of cvdfoundation/kinetics-dataset for Kinetics-400, training part (several hundred GB), "
        "or cut the listed ten seconds from YouTube with yt-dlp",
        "unpack into DIR; only the 31 classes are needed",
        "name clips YouTubeID_start_end.mp4 with six digits a number; folders by class or none at all both work",
    ),
    layout=(
        "DIR/train/playing_accordion/--abCdEfGhI_000058_000068.mp4 (a folder per class, blanks or underscores)",
        "DIR/train/--abCdEfGhI_000058_000068.mp4 (flat)",
    ),
    pattern="**/*_[0-9][0-9][0-9][0-9][0-9][0-9].mp4",
    count=17396,
)
_AVE_MEDIA = ByHand(
    what="4,097 ten-second videos (mp4)",
    url="https://drive.google.com/open?id=1FjKwe79e0u96vdjIVwfRQ1V6SoDHe7kK",
    licence="no licence file; the videos belong to their owners",
    terms="The link is the one in the README of YapengTian/AVE-ECCV18; Google Drive asks for a click on large files.",
    steps=(
        "download AVE_Dataset.zip in a browser and put it into DIR",
        "run `clcr fetch ave --to DIR` again: it unpacks the archive, or unpack it yourself",
    ),
    layout=("DIR/AVE_Dataset/AVE/c---zaDCTaE.mp4 (YouTube id and .mp4)",),
    pattern="**/AVE/*.mp4",
    count=4097,
    archive="AVE_Dataset.zip",
)
_UCF101_MEDIA = ByHand(
    what="13,320 clips (avi) in 101 folders",
    url="https://www.crcv.ucf.edu/data/UCF101.php",
    licence="research use; the videos belong to their owners",
    terms="Cite Soomro, Zamir, Shah, CRCV-TR-12-01. The archive is a .rar of 6.9 GB, which needs `unrar`.",
    steps=(
        "download UCF101.rar from that page into DIR",
        "unrar x UCF101.rar DIR/",
        "optical flow is computed by `clcr prepare`, or published flow pictures are read from DIR",
    ),
    layout=("DIR/UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi",),
    pattern="**/v_*_g[0-9][0-9]_c[0-9][0-9].avi",
    count=13320,
)


def _lists(base: str, licence: str, *rows: tuple[str, str, int]) -> tuple[File, ...]:
    """Pinned lists, which keep their names: rows of name, sha256, bytes."""
    return tuple(File(name, f"{base}/{name}", licence, sha256, size) for name, sha256, size in rows)


def _sequences(corpus: str, *names: str) -> tuple[File, ...]:
    return tuple(File(name.rpartition("/")[2], f"{_CSD}/{corpus}/{name}", _CMU, large=True) for name in names)


def _pickles(corpus: str, aligned: str, unaligned: str) -> ByHand:
    return ByHand(
        what=f"the feature files of the field ({corpus}, BERT / COVAREP / FACET), instead of the sequences",
        url="https://drive.google.com/drive/folders/1A2S4pqCHryGmiqnNSPLv7rEg63WvjCSk",
        licence=_CMU,
        terms="Linked from the README of thuiar/MMSA (also on Baidu). Pickles: read by an allow-list, never executed.",
        steps=(
            f"download {corpus}/Processed/aligned_50.pkl and unaligned_50.pkl",
            f"compare sha256: aligned_50.pkl {aligned}",
            f"compare sha256: unaligned_50.pkl {unaligned}",
        ),
        layout=(f"DIR/{corpus}/Processed/aligned_50.pkl", f"DIR/{corpus}/Processed/unaligned_50.pkl"),
        pattern=f"{corpus}/Processed/*aligned_50.pkl",
        count=2,
    )


def _features(benchmark: str, path: str) -> ByHand:
    return ByHand(
        what="a file of features that was made for this open set",
        url="",
        licence="that of the recordings it was made from",
        terms=f"It has no public address that is known; `clcr prepare {benchmark}` checks its sha256.",
        steps=(f"put the file at DIR/{path}",),
        layout=(f"DIR/{path}",),
        pattern=path,
        count=1,
    )


SOURCES: dict[str, Sources] = {
    "crema_d": Sources(
        _lists(
            f"{_OGM_GE}/CREMAD",
            _MIT,
            ("train.csv", "68d0d3fd253830328fc92c68f3cf2e215db8c5b86757ad9c5112d2c76ba68bde", 140658),
            ("test.csv", "14866c99301fd56fb4a16f8a7048a8a6372a47069aee9f216443bc718be45f1f", 15624),
        )
        + _lists(
            _CREMA_D,
            _ODBL,
            ("VideoDemographics.csv", "e33ddc8b60bedf98541735801127cbb67098b5957271adbdd5dea8a44294eec3", 4033),
        ),
        (_CREMA_D_MEDIA,),
    ),
    "kinetics_sounds": Sources(
        _lists(
            f"{_OGM_GE}/KineticSound",
            _MIT,
            ("my_train.txt", "e75bb596c30bf839adb3c2dc73b4a4617add66b36c2f416f96ac2e56a251751f", 483173),
            ("my_test.txt", "3bb1fee2c9d30919cec6887a3e2fa27b7936cc3f46dff447d85ea21892a80a58", 56016),
        ),
        (_KINETICS_MEDIA,),
    ),
    "ave": Sources(
        _lists(
            _AVE,
            "no licence file",
            ("Annotations.txt", "0d24a9ec5cd4ceb779ebd83d74e83ec8e55c5e468cede3f320fb57346c9dd321", 144287),
        )
        + _lists(
            _PMR,
            _MIT,
            ("trainSet.txt", "4f6c37aff56d4a3407f8beff47ca59dcefb8e94b3e02bbc34b0c89b5cdad6945", 116313),
            ("valSet.txt", "76c3c51b67aacbbacd5708e17aab491638a5e9032f786adad1a13be55d9cb3ca", 13991),
            ("testSet.txt", "e73c25a509bb38a691c1e08064af66d0512554f2fbc883cddd6d2a51ede8449d", 13983),
        ),
        (_AVE_MEDIA,),
    ),
    "ucf101": Sources(
        _lists(
            _UCF101,
            _MIT,
            ("ucfTrainTestlist/classInd.txt", "d7abbb76074d04e80c62ad8a61529bb8eec32ef978569601b2890edec3af0359", 1586),
            (
                "ucfTrainTestlist/trainlist01.txt",
                "f7a4d7abc05147b921c17fc227d731197c3583f29945d1f1d46bce830d1b9f12",
                395164,
            ),
            (
                "ucfTrainTestlist/trainlist02.txt",
                "3ea7145317098bdb4a999f69fb3b53ca3d3831d692602fc5dc8cd5c5e3eb8ca9",
                397610,
            ),
            (
                "ucfTrainTestlist/trainlist03.txt",
                "c75af0148b3b0e70d5d881ad71b0a5fbb685bf2d3278908278658435c3f1bf0f",
                398805,
            ),
            (
                "ucfTrainTestlist/testlist01.txt",
                "81be4765084d72739dca4d11658f7ec369c441ad9e227f11d9468fe2a1c14890",
                145735,
            ),
            (
                "ucfTrainTestlist/testlist02.txt",
                "c9eec18f3f312153cda441f93e30bc9cffef1941367ebc06996e40c9cd056c91",
                143430,
            ),
            (
                "ucfTrainTestlist/testlist03.txt",
                "f9cc029b0598c63f5cc07d070ae1fa4666d1d3901cc79a93490ea0742ca097db",
                142360,
            ),
        ),
        (_UCF101_MEDIA,),
    ),
    "cmu_mosi": Sources(
        _lists(
            f"{_FOLDS}/CMU_MOSI",
            _MIT,
            ("cmu_mosi_std_folds.py", "027ca94558d1f2ac0b30b7a773f2b65439dc437fa42634c41e1fcf635d56127d", 1459),
        )
        + _sequences(
            "CMU-MOSI",
            "language/CMU_MOSI_TimestampedWords.csd",
            "acoustic/CMU_MOSI_COVAREP.csd",
            "visual/CMU_MOSI_Visual_Facet_41.csd",
            "labels/CMU_MOSI_Opinion_Labels.csd",
        ),
        (
            _pickles(
                "MOSI",
                "d3994fd25681f9c7ad6e9c6596a6fe9b4beb85ff7d478ba978b124139002e5f9",
                "78e0f8b5ef8ff71558e7307848fc1fa929ecb078203f565ab22b9daab2e02524",
            ),
        ),
    ),
    "cmu_mosei": Sources(
        _lists(
            f"{_FOLDS}/CMU_MOSEI",
            _MIT,
            ("cmu_mosei_std_folds.py", "4e13a2f538cf02ab56144eb2a91ca48a4024ce64faaae790ab9ff1c3f399b473", 46028),
        )
        + _sequences(
            "CMU-MOSEI",
            "language/CMU_MOSEI_TimestampedWords.csd",
            "acoustic/CMU_MOSEI_COVAREP.csd",
            "visual/CMU_MOSEI_VisualFacet42.csd",
            "labels/CMU_MOSEI_Labels.csd",
        ),
        (
            _pickles(
                "MOSEI",
                "45eccfb748a87c80ecab9bfac29582e7b1466bf6605ff29d3b338a75120bf791",
                "ad8b23d50557045e7d47959ce6c5b955d8d983f2979c7d9b7b9226f6dd6fec1f",
            ),
        ),
    ),
    "ravdess": Sources(by_hand=(_features("ravdess", "ravdess_av/ravdess_av.npz"),)),
    "av_digits": Sources(by_hand=(_features("av_digits", "avdigits/avdigits.npz"),)),
}
