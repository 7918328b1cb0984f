"""Layouts of public data sets, by their descriptions: what `prepare` must make of each."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from tests.planted import encoded

TRAIN, VALIDATION, TEST = "train", "validation", "test"

# Of images without a label, which must have a finding.
NONE = "no label"


@dataclass(frozen=True)
class Item:
    """An image of a layout."""

    path: str
    label: str
    """As in its path or its row."""

    number: int
    split: str | None

    @property
    def stem(self) -> str:
        return Path(self.path).stem

    @property
    def file(self) -> str:
        return Path(self.path).name


@dataclass(frozen=True)
class Layout:
    """A data set: its files, how it is read, and what comes out."""

    name: str
    folders: Mapping[str, str | None]
    """Templates of paths with {c} (class), {k} (its number) and {n}, and their splits."""

    classes: Sequence[str] = ("ant", "bee", "wasp")
    options: str = ""
    tables: Mapping[str, Callable[[Sequence[Item]], str]] = field(default_factory=dict)
    """Further files."""

    shown: Mapping[str, str] = field(default_factory=dict)
    """Names of classes by those in paths, if they differ."""

    refused: str = ""
    """Words of the reason; empty if it is prepared."""

    kind: str = "JPEG"
    count: int = 6

    def items(self) -> list[Item]:
        found = []
        for template, split in self.folders.items():
            for k, name in enumerate(self.classes):
                for number in range(1, self.count + 1):
                    path = template.format(c=name, k=k, n=number, u=f"{k}{number:03d}")
                    found.append(Item(path, name, number, split))
        return found

    def write(self, root: Path, seed: int = 0) -> list[Item]:
        items = self.items()
        for index, item in enumerate(items):
            pixels = np.random.default_rng([seed, index]).integers(0, 255, (20, 20, 3), np.uint8)
            path = root / item.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(Image.fromarray(pixels), self.kind))
        for name, text in self.tables.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text(items), encoding="utf-8")
        return items

    def expected(self) -> dict[str, tuple[str, str | None]]:
        """Return label and split of every labeled image, by its path."""
        return {
            item.path: (self.shown.get(item.label, item.label), item.split)
            for item in self.items()
            if item.split != NONE
        }


def table(header: str, row: str, split: str | None = None) -> Callable[[Sequence[Item]], str]:
    """Return a function that writes a row for every labeled image, or for those of a split."""

    def write(items: Sequence[Item]) -> str:
        chosen = [
            item for item in items if item.split in ({split} if split else {None, TRAIN, TEST})
        ]
        lines = [row.format(c=item.label, i=item, n=item.number) for item in chosen]
        return "\n".join([*filter(None, [header]), *lines]) + "\n"

    return write


def one_hot(names: Sequence[str]) -> Callable[[Sequence[Item]], str]:
    """Return a function that writes a table with a column for every class."""

    def write(items: Sequence[Item]) -> str:
        rows = [
            ",".join([item.stem, *(f"{float(item.label == name)}" for name in names)])
            for item in items
            if item.split != NONE
        ]
        return "\n".join([f"image,{','.join(names)}", *rows]) + "\n"

    return write


def text(value: str) -> Callable[[Sequence[Item]], str]:
    """Return a function that writes the same text for all images."""
    return lambda _: value


BREEDS = ("Abyssinian", "american_bulldog", "Bengal")
FLOWERS = ("1", "10", "102")
SYNSETS = ("n01440764", "n01443537", "n02979186")
SYNSET_NAMES = dict(zip(SYNSETS, ("tench", "goldfish", "cassette player"), strict=True))
NUMBERS = ("0", "1", "2")
SIGNS = {"0": "limit 20", "1": "limit 30", "2": "limit 50"}
LESIONS = ("MEL", "NV", "BCC")

LAYOUTS = (
    Layout(
        "Oxford-IIIT Pet",
        {"images/{c}_{n}.jpg": None, "annotations/trimaps/{c}_{n}.png": NONE},
        BREEDS,
        "--within images --label name-number",
    ),
    Layout(
        "Oxford-IIIT Pet, without options",
        {"images/{c}_{n}.jpg": None, "annotations/trimaps/{c}_{n}.png": NONE},
        BREEDS,
        refused="the folder images is no class, and annotations is next to it",
    ),
    Layout(
        "Intel scenes",
        {
            "seg_train/seg_train/{c}/{n}.jpg": TRAIN,
            "seg_test/seg_test/{c}/{n}.jpg": TEST,
            "seg_pred/seg_pred/{u}.jpg": NONE,
        },
        ("buildings", "forest", "sea"),
    ),
    Layout(
        "GTSRB (Kaggle)",
        {"Train/{k}/{k}_{n}.png": TRAIN, "Test/{u}.png": TEST, "Meta/{u}.png": NONE},
        NUMBERS,
        "--manifest Train.csv Test.csv --classes signs.csv",
        {
            "Train.csv": table("Width,Height,ClassId,Path", "30,30,{c},{i.path}", TRAIN),
            "Test.csv": table("Width,Height,ClassId,Path", "30,30,{c},{i.path}", TEST),
            "signs.csv": text("ClassId,SignName\n0,limit 20\n1,limit 30\n2,limit 50\n"),
        },
        SIGNS,
        kind="PNG",
    ),
    Layout(
        "GTSRB (benchmark)",
        {"GTSRB/Final_Training/Images/0000{k}/{n}.ppm": TRAIN},
        NUMBERS,
        "--classes signs.csv",
        {
            "signs.csv": text("ClassId,SignName\n0,limit 20\n1,limit 30\n2,limit 50\n"),
            "GTSRB/Final_Training/Images/00000/GT-00000.csv": text("Filename;ClassId\n"),
        },
        SIGNS,
        kind="PPM",
    ),
    Layout(
        "HAM10000",
        {
            "HAM10000_images_part_1/ISIC_1{u}.jpg": None,
            "HAM10000_images_part_2/ISIC_2{u}.jpg": None,
        },
        ("nv", "mel", "bkl"),
        "--manifest HAM10000_metadata.csv --columns group=lesion_id",
        {
            "HAM10000_metadata.csv": table(
                "lesion_id,image_id,dx,dx_type", "HAM_{i.stem},{i.stem},{c},histo"
            )
        },
    ),
    Layout(
        "UC Merced",
        {"UCMerced_LandUse/Images/{c}/{c}{n:02d}.tif": None},
        ("agricultural", "airplane", "beach"),
        kind="TIFF",
    ),
    Layout(
        "Cassava leaves",
        {"train_images/1{u}.jpg": None, "test_images/2{u}.jpg": NONE},
        NUMBERS,
        "--manifest train.csv --classes label_num_to_disease_map.json",
        {
            "train.csv": table("image_id,label", "{i.file},{c}"),
            "label_num_to_disease_map.json": text('{"0": "CBB", "1": "CBSD", "2": "CGM"}'),
        },
        {"0": "CBB", "1": "CBSD", "2": "CGM"},
    ),
    Layout("EuroSAT", {"2750/{c}/{c}_{n}.jpg": None}, ("AnnualCrop", "Forest", "River")),
    Layout(
        "Caltech 101",
        {"caltech-101/101_ObjectCategories/{c}/image_000{n}.jpg": None},
        ("BACKGROUND_Google", "accordion", "airplanes"),
    ),
    Layout(
        "Caltech 256",
        {"256_ObjectCategories/{c}/00{k}_000{n}.jpg": None},
        ("001.ak47", "002.american-flag", "257.clutter"),
    ),
    Layout(
        "Food-101",
        {"food-101/images/{c}/{u}.jpg": None},
        ("apple_pie", "baklava", "ramen"),
        tables={"food-101/meta/classes.txt": text("apple_pie\nbaklava\nramen\n")},
    ),
    Layout(
        "Food-101, published splits",
        {"images/{c}/1{u}.jpg": TRAIN, "images/{c}/2{u}.jpg": TEST},
        ("apple_pie", "baklava", "ramen"),
        "--manifest meta/train.txt meta/test.txt",
        {
            "meta/train.txt": table("", "{c}/{i.stem}", TRAIN),
            "meta/test.txt": table("", "{c}/{i.stem}", TEST),
        },
    ),
    Layout(
        "Stanford Cars",
        {"car_data/car_data/train/{c}/{u}.jpg": TRAIN, "car_data/car_data/test/{c}/{u}.jpg": TEST},
        ("Acura TL Sedan 2012", "BMW M3 Coupe 2012", "Ram C-V Cargo Van Minivan 2012"),
        tables={"names.csv": text("Acura TL Sedan 2012\n"), "anno_train.csv": text("1.jpg,39\n")},
    ),
    Layout(
        "CIFAR-10 as folders",
        {"cifar10/train/{c}/000{n}.png": TRAIN, "cifar10/test/{c}/000{n}.png": TEST},
        ("airplane", "automobile", "bird"),
        kind="PNG",
    ),
    Layout(
        "CIFAR-10 (Kaggle)",
        {"train/1{u}.png": None, "test/2{u}.png": NONE},
        ("cat", "dog", "frog"),
        "--manifest trainLabels.csv",
        {"trainLabels.csv": table("id,label", "{i.stem},{c}")},
        kind="PNG",
    ),
    Layout(
        "ISIC 2019",
        {"ISIC_2019_Training_Input/ISIC_{u}.jpg": None},
        LESIONS,
        "--manifest ISIC_2019_Training_GroundTruth.csv",
        {"ISIC_2019_Training_GroundTruth.csv": one_hot(LESIONS)},
    ),
    Layout(
        "PlantVillage",
        {"color/{c}/{u}.JPG": None, "grayscale/{c}/{u}.JPG": None, "segmented/{c}/{u}.jpg": None},
        ("Apple___Apple_scab", "Apple___healthy", "Corn___healthy"),
        refused="the folders color, grayscale, segmented contain the same folders",
    ),
    Layout(
        "PlantVillage, in color",
        {"color/{c}/{u}.JPG": None, "grayscale/{c}/{u}.JPG": NONE},
        ("Apple___Apple_scab", "Apple___healthy", "Corn___healthy"),
        "--within color",
    ),
    Layout(
        "Dogs vs Cats",
        {"train/{c}.{n}.jpg": TRAIN, "test1/{u}.jpg": NONE},
        ("cat", "dog"),
        r"--label '(?P<label>cat|dog)\.\d+\.jpg$'",
    ),
    Layout(
        "Dogs vs Cats, without options",
        {"train/{c}.{n}.jpg": TRAIN, "test1/{u}.jpg": NONE},
        ("cat", "dog"),
        refused="no image has a label",
    ),
    Layout(
        "Cats and Dogs (Microsoft)",
        {"PetImages/{c}/{n}.jpg": None},
        ("Cat", "Dog"),
        tables={"readme[1].txt": text("-")},
    ),
    Layout(
        "ImageNet",
        {
            "ILSVRC/Data/CLS-LOC/train/{c}/{c}_{n}.JPEG": TRAIN,
            "ILSVRC/Data/CLS-LOC/val/ILSVRC2012_val_{u}.JPEG": NONE,
            "ILSVRC/Data/CLS-LOC/test/ILSVRC2012_test_{u}.JPEG": NONE,
        },
        SYNSETS,
        "--classes LOC_synset_mapping.txt",
        {"LOC_synset_mapping.txt": text("".join(f"{a} {b}\n" for a, b in SYNSET_NAMES.items()))},
        SYNSET_NAMES,
    ),
    Layout(
        "Imagenette",
        {
            "imagenette2/train/{c}/{c}_{n}.JPEG": TRAIN,
            "imagenette2/val/{c}/{c}_1{n}.JPEG": VALIDATION,
        },
        SYNSETS,
        "--classes imagenet_class_index.json",
        {"imagenet_class_index.json": text('{"0": ["n01440764", "tench"]}')},
        refused="--classes has no name for the label 'n01440764'",
    ),
    Layout(
        "Tiny ImageNet",
        {
            "tiny-imagenet-200/train/{c}/images/{c}_{n}.JPEG": TRAIN,
            "tiny-imagenet-200/val/images/val_{u}.JPEG": NONE,
            "tiny-imagenet-200/test/images/test_{u}.JPEG": NONE,
        },
        SYNSETS,
        "--classes tiny-imagenet-200/words.txt",
        {
            "tiny-imagenet-200/words.txt": text(
                "".join(f"{a}\t{b}\n" for a, b in SYNSET_NAMES.items())
            )
        },
        SYNSET_NAMES,
    ),
    Layout(
        "CUB-200-2011",
        {"CUB_200_2011/images/{c}/{c}_{u}.jpg": None},
        ("001.Black_footed_Albatross", "002.Laysan_Albatross", "003.Sooty_Albatross"),
        tables={"CUB_200_2011/classes.txt": text("1 001.Black_footed_Albatross\n")},
    ),
    Layout(
        "SVHN, cropped, as files",
        {"train/{u}.png": TRAIN, "test/1{u}.png": TEST},
        NUMBERS,
        "--manifest train.csv test.csv",
        {
            "train.csv": table("filename,label", "train/{i.file},{c}", TRAIN),
            "test.csv": table("filename,label", "test/{i.file},{c}", TEST),
        },
        kind="PNG",
    ),
    Layout(
        "Chest X-ray (pneumonia)",
        {
            "chest_xray/train/{c}/a{n}.jpeg": TRAIN,
            "chest_xray/val/{c}/b{n}.jpeg": VALIDATION,
            "chest_xray/test/{c}/c{n}.jpeg": TEST,
        },
        ("NORMAL", "PNEUMONIA"),
    ),
    Layout(
        "Chest X-ray, packed twice",
        {
            "train/{c}/a{n}.jpeg": TRAIN,
            "test/{c}/b{n}.jpeg": TEST,
            "chest_xray/train/{c}/a{n}.jpeg": TRAIN,
        },
        ("NORMAL", "PNEUMONIA"),
        refused="train look like splits, but chest_xray is next to them",
    ),
    Layout(
        "Dog breed identification",
        {"train/1{u}.jpg": None, "test/2{u}.jpg": NONE},
        ("boston_bull", "dingo", "pug"),
        "--manifest labels.csv",
        {"labels.csv": table("id,breed", "{i.stem},{c}")},
    ),
    Layout(
        "TrashNet",
        {"dataset-resized/{c}/{c}{n}.jpg": None},
        ("cardboard", "glass", "trash"),
        tables={"one-indexed-files.txt": text("cardboard1.jpg 3\n")},
    ),
    Layout(
        "Flowers 102 as folders",
        {
            "flower_data/train/{c}/image_{u}.jpg": TRAIN,
            "flower_data/valid/{c}/image_1{u}.jpg": VALIDATION,
            "flower_data/test/{c}/image_2{u}.jpg": TEST,
        },
        FLOWERS,
        "--classes cat_to_name.json",
        {"cat_to_name.json": text(json.dumps(dict(zip(FLOWERS, "xyz", strict=True))))},
        dict(zip(FLOWERS, "xyz", strict=True)),
    ),
    Layout(
        "DTD",
        {"dtd/images/{c}/{c}_00{n}.jpg": None},
        ("banded", "blotchy", "zigzagged"),
        tables={"dtd/labels/train1.txt": text("banded/banded_001.jpg\n")},
    ),
    Layout(
        "SUN397",
        {"SUN397/{c[0]}/{c}/sun_{u}.jpg": None},
        ("abbey", "bakery", "cabin"),
        "--label folder",
    ),
    Layout(
        "SUN397, without options",
        {"SUN397/{c[0]}/{c}/sun_{u}.jpg": None},
        ("abbey", "bakery", "cabin"),
        refused="are an alphabetical index of the class folders",
    ),
    Layout(
        "iNaturalist 2018",
        {"train_val2018/{c}/{k}/{u}.jpg": TRAIN},
        ("Aves", "Fungi", "Insecta"),
        tables={"train2018.json": text("{}")},
    ),
    Layout(
        "MNIST as images",
        {"training/{c}/{u}.png": TRAIN, "testing/{c}/1{u}.png": TEST},
        NUMBERS,
        kind="PNG",
    ),
    Layout(
        "Fruits 360",
        {
            "fruits-360/Training/{c}/{n}_100.jpg": TRAIN,
            "fruits-360/Test/{c}/r_{n}_100.jpg": TEST,
            "fruits-360/test-multiple_fruits/{u}.jpg": NONE,
        },
        ("Apple Braeburn", "Fig", "Kiwi"),
    ),
    Layout(
        "Brain tumor MRI",
        {"Training/{c}/{n}.jpg": TRAIN, "Testing/{c}/1{n}.jpg": TEST},
        ("glioma_tumor", "no_tumor", "pituitary_tumor"),
    ),
    Layout(
        "Brain MRI, packed twice",
        {"{c}/{n}.jpg": None, "brain_tumor_dataset/{c}/{n}.jpg": None},
        ("no", "yes"),
        refused="contains folders of the same names as those next to it",
    ),
    Layout(
        "Malaria cells",
        {"cell_images/{c}/{u}.png": None},
        ("Parasitized", "Uninfected"),
        kind="PNG",
    ),
    Layout(
        "100 sports",
        {
            "train/{c}/{n}.jpg": TRAIN,
            "valid/{c}/1{n}.jpg": VALIDATION,
            "test/{c}/2{n}.jpg": TEST,
            "images to predict/{u}.jpg": NONE,
        },
        ("archery", "ballet", "chuckwagon racing"),
        tables={"sports.csv": text("filepaths\n")},
    ),
    Layout(
        "Simpsons",
        {"simpsons_dataset/{c}/pic_{u}.jpg": None, "kaggle_simpson_testset/{c}_{n}.jpg": NONE},
        ("bart", "lisa", "moe"),
        "--within simpsons_dataset",
    ),
    Layout(
        "Simpsons, without options",
        {"simpsons_dataset/{c}/pic_{u}.jpg": None, "kaggle_simpson_testset/{c}_{n}.jpg": NONE},
        ("bart", "lisa", "moe"),
        refused="kaggle_simpson_testset looks like a split, but simpsons_dataset is next to it",
    ),
    Layout(
        "ASL alphabet",
        {
            "asl_alphabet_train/asl_alphabet_train/{c}/{c}{n}.jpg": TRAIN,
            "asl_alphabet_test/asl_alphabet_test/{c}{n}_test.jpg": NONE,
        },
        ("A", "B", "space"),
    ),
    Layout(
        "Rock paper scissors",
        {"rps/{c}/{c}{n}.png": None},
        ("paper", "rock", "scissors"),
        kind="PNG",
    ),
    Layout(
        "Breast histopathology",
        {
            "1025{k}/{x}/1025{k}_{u}_class{x}.png".replace("{x}", "0"): None,
            "1025{k}/{x}/1025{k}_{u}_class{x}.png".replace("{x}", "1"): None,
        },
        refused="contain the same folders, 0, 1",
    ),
    Layout(
        "Multi-class weather",
        {"{c}{n}.jpg": None},
        ("cloudy", "rain", "shine"),
        "--label name-number",
    ),
    Layout(
        "APTOS 2019",
        {"train_images/1{u}.png": None, "test_images/2{u}.png": NONE},
        NUMBERS,
        "--manifest train.csv",
        {"train.csv": table("id_code,diagnosis", "{i.stem},{c}")},
        kind="PNG",
    ),
    Layout(
        "Humpback whales",
        {"train/1{u}.jpg": None, "test/2{u}.jpg": NONE},
        ("w_1287fbc", "w_98baff9", "w_e15442c"),
        "--manifest train.csv --columns label=Id",
        {"train.csv": table("Image,Id", "{i.file},{c}")},
    ),
    Layout(
        "Horse2zebra (CycleGAN)", {"train{c}/{u}.jpg": TRAIN, "test{c}/1{u}.jpg": TEST}, ("A", "B")
    ),
    Layout(
        "COCO's names of folders",
        {"train2017/{c}/{u}.jpg": TRAIN, "val2017/{c}/1{u}.jpg": VALIDATION},
        ("bus", "car", "train"),
    ),
    Layout("Vehicles with a class train", {"{c}/{n}.jpg": None}, ("bus", "car", "train", "truck")),
    Layout(
        "Class folders with splits in them", {"{c}/train/{n}.jpg": TRAIN, "{c}/test/1{n}.jpg": TEST}
    ),
    Layout(
        "MIT Indoor 67",
        {"Images/{c}/{c}_{n}.jpg": None},
        ("bakery", "gameroom", "pantry"),
        tables={"TrainImages.txt": text("gameroom/gameroom_1.jpg\n")},
    ),
    Layout("ORL faces", {"att_faces/{c}/{n}.pgm": None}, ("s1", "s2", "s40"), kind="PPM"),
    Layout("Images of web pages, AVIF", {"{c}/{u}.avif": None}, ("cat", "dog"), kind="AVIF"),
    Layout("X_train and X_test", {"X_train/{c}/{n}.jpg": TRAIN, "X_test/{c}/1{n}.jpg": TEST}),
    Layout(
        "dev and holdout",
        {
            "trainset/{c}/{n}.jpg": TRAIN,
            "dev/{c}/1{n}.jpg": VALIDATION,
            "hold-out/{c}/2{n}.jpg": TEST,
        },
    ),
    Layout(
        "A CSV without a header",
        {"images/{u}.jpg": None},
        ("ant", "bee"),
        "--manifest labels.csv",
        {"labels.csv": table("", "images/{i.file},{c}")},
    ),
)


def layouts_table() -> str:
    """Return the table of the layouts for the documents."""
    rows = ["| data set | files | options | result |", "|---|---|---|---|"]
    for layout in LAYOUTS:
        files = "<br>".join(f"`{_shown(layout, path)}`" for path in layout.folders)
        options = f"`{layout.options}`".replace("|", r"\|") if layout.options else ""
        splits = [str(split) for split in layout.folders.values() if split not in {None, NONE}]
        names = ", ".join(dict.fromkeys(layout.shown.get(name, name) for name in layout.classes))
        result = f"classes {names}"
        if splits:
            result += f"; splits {', '.join(dict.fromkeys(splits))}"
        if NONE in layout.folders.values() and "--within" not in layout.options:
            result += "; the others have no labels"
        rows.append(
            f"| {layout.name} | {files} | {options} | "
            f"{f'rejected: `{layout.refused}`' if layout.refused else result} |"
        )
    return "\n".join(rows)


def _shown(layout: Layout, template: str) -> str:
    return template.format(c=layout.classes[0], k=0, n=1, u="0001")
