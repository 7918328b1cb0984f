"""Import hook that makes smdebug's messages work with protobuf 4.22 or later.

smdebug's generated modules are from a compiler that current protobuf versions reject. They contain
serialized descriptors, which this hook reads without running the modules, and passes to protobuf to
create the classes.
"""

import ast
import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from google.protobuf.message import Message

PACKAGE = "smdebug.core.tfevent.proto."
SUFFIX = "_pb2"

# Not protobuf's default pool: TensorFlow or TensorBoard may define messages with the same names.
_pool = descriptor_pool.DescriptorPool()


class Bridge(MetaPathFinder, Loader):
    """Finds and loads the modules of smdebug's messages."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return a spec for modules with messages, at the path that the default finder returns."""
        if not (name.startswith(PACKAGE) and name.endswith(SUFFIX)):
            return None
        found = PathFinder.find_spec(name, path)
        if found is None or found.origin is None:
            return None
        return ModuleSpec(name, self, origin=found.origin)

    def exec_module(self, module: ModuleType) -> None:
        """Define the module's messages and enumerations.

        Raises:
            ImportError: the file has no descriptor.
        """
        spec = module.__spec__
        assert spec is not None  # noqa: S101 - the import system sets it
        serialized = _serialized(Path(str(spec.origin)))
        described = descriptor_pb2.FileDescriptorProto.FromString(serialized)
        for dependency in described.dependency:
            importlib.import_module(dependency.removesuffix(".proto").replace("/", ".") + SUFFIX)
        file = _pool.AddSerializedFile(serialized) or _pool.FindFileByName(described.name)
        contents: dict[str, object] = {"DESCRIPTOR": file}
        for name, message in file.message_types_by_name.items():
            contents[name] = _class_of(message)
        for name, enumeration in file.enum_types_by_name.items():
            contents[name] = EnumTypeWrapper(enumeration)
            contents |= {value.name: value.number for value in enumeration.values}
        vars(module).update(contents)


def install() -> None:
    """Register the hook once."""
    if not any(isinstance(finder, Bridge) for finder in sys.meta_path):
        sys.meta_path.insert(0, Bridge())


def _class_of(message: Descriptor) -> type[Message]:
    made: type[Message] = message_factory.GetMessageClass(message)
    # protobuf's pure Python implementation does not set them.
    for nested in message.nested_types:
        setattr(made, nested.name, _class_of(nested))
    return made


def _serialized(path: Path) -> bytes:
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.keyword) and node.arg == "serialized_pb":
            value = ast.literal_eval(node.value)
            if isinstance(value, bytes):
                return value
    raise ImportError(f"{path} has no message descriptor")
