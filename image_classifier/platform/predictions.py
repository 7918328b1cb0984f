"""Lines of text about the server's predictions.

`python -m image_classifier.platform.predictions NAME` prints those of a response on standard input.
Imports the standard library only, so that any Python can print them.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any


def lines(name: str, response: Mapping[str, Any], top: int = 2) -> Iterator[str]:
    """Yield a line about each prediction of a response: the class, then the next best ones.

    Args:
        name: what was sent, such as an image file.
        response: the response, parsed.
        top: number of classes.
    """
    for prediction in response["predictions"]:
        if "error" in prediction:
            yield f"{name}: {prediction['error']['message']}"
            continue
        text = f"{name}: {_class(prediction)}"
        others = ", ".join(map(_class, prediction.get("ranking", [])[1:top]))
        yield f"{text}, next best {others}" if others else text


def _class(prediction: Mapping[str, Any]) -> str:
    return f"{prediction['class_name']} ({prediction['probability']:.1%})"


def main() -> int:
    """Read a response from standard input and print its lines; return 1 if it is not one."""
    try:
        found = list(lines(sys.argv[1], json.load(sys.stdin)))
    except (ValueError, LookupError, TypeError):
        return 1
    print("\n".join(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
