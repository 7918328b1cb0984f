"""Names of folders and manifests that stand for splits, such as `train2017` and `Test Images`."""

import re
import unicodedata
from dataclasses import dataclass

# Images of this split have no labels, such as those of a competition that are to be predicted.
UNLABELED = "unlabeled"

# Words that stand for a split.
_ROLES = {
    "train": (
        "train", "trn", "training", "entrenamiento", "entrainement", "apprentissage", "treino",
        "treinamento", "addestramento", "训练", "训练集", "訓練",
    ),
    "validation": (
        "val", "valid", "validation", "validate", "dev", "eval", "evaluation", "validierung",
        "validacion", "validacao", "validazione", "验证", "验证集", "驗證", "検証",
    ),
    "test": (
        "test", "tst", "testing", "holdout", "heldout", "prueba", "teste", "测试", "测试集", "測試",
        "テスト",
    ),
    UNLABELED: ("pred", "predict", "prediction", "predictions", "unlabeled", "unlabelled"),
}  # fmt: skip

# Words that are added to them and have no meaning for a class.
_GENERIC = re.compile(r"(image|img|pic(ture)?|photo|data(set)?|file|jpe?g|png)s?|folder|jpegimages")
_FILLER = re.compile(
    r"(set|split|sample|class)(e?s)?|dir|input|x|final|full|cls|of|the|to|for|part|my"
)

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_]+")
_HOLD_OUT = re.compile(r"(hold|held)[ _.-]?out", re.IGNORECASE)
_COMPOUND = re.compile(r"(?P<word>[a-z]+?)(set|data(set)?|images|imgs?|s?bilder|s?daten|s?satz)$")
_BY_WORD = {word: role for role, words in _ROLES.items() for word in words}


@dataclass(frozen=True, slots=True)
class SplitName:
    """The split that a folder's name stands for."""

    role: str
    """train, validation, test or unlabeled."""

    is_exact: bool
    """Whether the name has no further word with a meaning, as `train_cats` has."""

    rest: str
    """The name without the word of the split, such as `cats`."""


def normalized(name: str) -> str:
    """Return a name in Unicode's composed form (NFC): macOS writes the decomposed one."""
    return unicodedata.normalize("NFC", name)


def split_name(name: str) -> SplitName | None:
    """Return the split that a name stands for; None without one."""
    name = _HOLD_OUT.sub("holdout", normalized(name))
    matches = list(_WORD.finditer(_without_accents(name)))
    roles = [_role(match[0].lower()) for match in matches]
    found = {role for role in roles if role}
    if found == {"train", "validation"}:
        # trainval is what remains without the test split.
        found = {"train"}
    others = [
        index
        for index, (match, role) in enumerate(zip(matches, roles, strict=True))
        if not (role or _is_filler(match[0].lower()))
    ]
    if len(found) != 1:
        return None
    positions = [index for index, role in enumerate(roles) if role]
    is_between = any(i < positions[0] for i in others) and any(i > positions[-1] for i in others)
    if is_between:
        return None
    first, last = matches[positions[0]], matches[positions[-1]]
    rest = (name[: first.start()] + name[last.end() :]).strip(" _-.()")
    return SplitName(found.pop(), not others, rest if others else "")


def _without_accents(name: str) -> str:
    """Return a name of the same length, such as `entrainement` for `entraînement`."""
    return "".join(unicodedata.normalize("NFD", character)[0] for character in name)


def role_of(name: str) -> str | None:
    """Return the split that the name of a folder or a manifest stands for."""
    found = split_name(name)
    return found.role if found else None


def is_generic(name: str) -> bool:
    """Return whether a folder's name, such as `images`, has no meaning for a class."""
    words = [match[0].lower() for match in _WORD.finditer(name)]
    return bool(words) and all(map(_GENERIC.fullmatch, words))


def _is_filler(word: str) -> bool:
    return bool(_GENERIC.fullmatch(word) or _FILLER.fullmatch(word))


def _role(word: str) -> str | None:
    compound = _COMPOUND.match(word)
    return _BY_WORD.get(word) or (_BY_WORD.get(compound["word"]) if compound else None)
